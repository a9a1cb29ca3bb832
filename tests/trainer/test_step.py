"""One optimizer step: layouts and micro-batches that do not change the gradient, and running out of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import model, step
from trainer.config import resolve
from trainer.errors import OutOfMemory
from trainer.model import Trainable


def trainable_of(job: Any) -> Trainable:
    found = model.prepare(job.config, job.base, torch.device("cpu"), job.tokenizer.size)
    found.model.train()
    generator = torch.Generator().manual_seed(1)
    for parameter in found.parameters:  # fresh adapters have a zero half, which would hide mistakes
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return found


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, prepare: Any) -> Any:
    return prepare(tmp_path_factory.mktemp("step") / "run", "lora.rank=4")


@pytest.fixture(scope="module")
def trainable(job: Any) -> Trainable:
    return trainable_of(job)


def gradient(trainable: Trainable, job: Any, groups: Any, micro: int, **more: Any) -> tuple[torch.Tensor, float, int]:
    for parameter in trainable.parameters:
        parameter.grad = None
    loss, used = step.accumulate(
        trainable,
        job.dataset,
        groups,
        step.supervised_tokens(job.dataset, groups),
        micro=micro,
        pad_id=0,
        chunk=64,
        multiple=more.get("multiple", 1),
        on_retry=more.get("on_retry", lambda micro, level: None),
    )
    grads = [p.grad for p in trainable.parameters]
    assert all(g is not None for g in grads)
    return torch.cat([g.flatten() for g in grads if g is not None]), loss.item(), used


class TestInvariance:
    @pytest.mark.parametrize("micro", [1, 3, 8])
    def test_any_micro_batch_gives_the_same_gradient(self, trainable: Trainable, job: Any, micro: int) -> None:
        """Rows of different lengths, cut into micro-batches of any size, add up to the same step."""
        groups = job.dataset.train[:16]
        whole, loss, _ = gradient(trainable, job, groups, 16)
        parts, same_loss, _ = gradient(trainable, job, groups, micro)
        assert whole.norm() > 0.01
        assert ((parts - whole).norm() / whole.norm()).item() < 1e-4
        assert same_loss == pytest.approx(loss, rel=1e-5)

    def test_packed_rows_do_not_see_each_other(self, trainable: Trainable, job: Any) -> None:
        """Three rows in one sequence give the loss and gradient of three sequences."""
        rows = job.dataset.train[:3]
        packed = (tuple(i for group in rows for i in group),)
        apart, loss, _ = gradient(trainable, job, rows, 3)
        together, same_loss, _ = gradient(trainable, job, packed, 1)
        assert same_loss == pytest.approx(loss, rel=1e-5)
        assert ((together - apart).norm() / apart.norm()).item() < 1e-4

    def test_padding_to_one_width_changes_nothing(self, trainable: Trainable, job: Any) -> None:
        """Compiled kernels want few shapes: sequences filled up to a multiple give the same loss and gradient."""
        rows = job.dataset.train[:3]
        packed = (tuple(i for group in rows for i in group),)
        assert step.collate(job.dataset, packed, 0, 128).ids.shape[1] % 128 == 0
        bare, loss, _ = gradient(trainable, job, packed, 1)
        filled, same_loss, _ = gradient(trainable, job, packed, 1, multiple=128)
        assert same_loss == pytest.approx(loss, rel=1e-5)
        assert ((filled - bare).norm() / bare.norm()).item() < 1e-4

    @pytest.mark.parametrize(
        ("sets", "multiple"),
        [
            ((), 1),
            (("memory.compile=on",), 2048),
            (("memory.attention=flex_attention",), 2048),
            (("memory.compile=on", "data.packing=false"), 128),
        ],
    )
    def test_when_widths_are_fixed(self, sets: tuple[str, ...], multiple: int) -> None:
        """Only where something is compiled; to one width where packing fills the sequences, else in blocks."""
        assert step.width_multiple(resolve("gemma-2b", sets=sets).config) == multiple

    def test_the_loss_is_the_models_own(self, trainable: Trainable, job: Any) -> None:
        """Our head and mask give what the model itself gives for the same labels."""
        batch = step.collate(job.dataset, job.dataset.train[:1], 0)
        labels = torch.full_like(batch.ids, -100).reshape(-1)
        labels[batch.rows + 1] = batch.targets
        ours = step.batch_loss(trainable, batch, 64).item() / len(batch.targets)
        theirs = trainable.model(input_ids=batch.ids, labels=labels.reshape(batch.ids.shape), use_cache=False).loss
        assert ours == pytest.approx(theirs.item(), rel=1e-4)

    def test_recomputing_layers_and_a_resident_base_change_nothing(
        self, trainable: Trainable, job: Any, tmp_path: Path, prepare: Any
    ) -> None:
        """Both only trade memory for time: the gradients are equal bit by bit."""
        groups = job.dataset.train[:4]
        plain, _, _ = gradient(trainable, job, groups, 2)
        levels = [f"memory.checkpointing={level}" for level in ("selective", "full", "offload")]
        for setting in (*levels, "memory.resident=on"):
            other = prepare(tmp_path / setting.partition("=")[2], "lora.rank=4", setting)
            found, _, _ = gradient(trainable_of(other), other, groups, 2)  # on quantised weights
            assert torch.equal(found, plain), setting


def two_rows_fit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let memory run out at the second batch and after it where there are more than two rows; the rows of each."""
    real, rows = step.batch_loss, list[int]()

    def small_card(trainable: Trainable, batch: step.Batch, chunk: int) -> torch.Tensor:
        rows.append(len(batch.ids))
        if len(batch.ids) > 2 and len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(trainable, batch, chunk)

    monkeypatch.setattr(step, "batch_loss", small_card)
    return rows


class TestOutOfMemory:
    def test_the_same_step_is_done_again_in_smaller_pieces(
        self, trainable: Trainable, job: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After running out of memory half-way, the step's gradient is what it would have been, in halves."""
        groups = job.dataset.train[:8]
        expected, _, _ = gradient(trainable, job, groups, 2)
        calls, heard = two_rows_fit(monkeypatch), []
        found, _, used = gradient(trainable, job, groups, 4, on_retry=lambda *said: heard.append(said))
        assert (calls, used, heard) == ([4, 4, 2, 2, 2, 2], 2, [(2, "off")])
        assert torch.equal(found, expected)

    def test_at_one_row_layers_recompute_more(
        self, trainable: Trainable, job: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same step again level by level until it fits, with the gradient that it would have had."""
        groups = job.dataset.train[:4]
        expected, _, _ = gradient(trainable, job, groups, 1)
        real, heard = step.batch_loss, []

        def small_card(trainable: Trainable, batch: step.Batch, chunk: int) -> torch.Tensor:
            if len(batch.ids) > 1 or trainable.layers.level in ("off", "selective"):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(trainable, batch, chunk)

        monkeypatch.setattr(step, "batch_loss", small_card)
        try:
            found, _, used = gradient(trainable, job, groups, 2, on_retry=lambda *said: heard.append(said))
            assert (used, heard) == (1, [(1, "off"), (1, "selective"), (1, "full")])
            assert torch.equal(found, expected)
        finally:
            trainable.layers.set("off")

    def test_an_evaluation_goes_on_in_smaller_pieces(
        self, trainable: Trainable, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each held-out row counts once, whatever fits at a time; the model trains on afterwards."""
        job = prepare(tmp_path / "run", "lora.rank=4", "data.eval_fraction=0.2")
        assert len(job.dataset.eval) > 4
        whole = step.evaluate(trainable, job.dataset, micro=8, pad_id=0, chunk=64)
        sizes = two_rows_fit(monkeypatch)
        parts = step.evaluate(trainable, job.dataset, micro=4, pad_id=0, chunk=64)
        assert sizes[:3] == [4, 4, 2]
        assert parts == pytest.approx(whole, rel=1e-5)
        assert trainable.model.training

    def test_one_row_that_does_not_fit(self, trainable: Trainable, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """At a micro-batch of one and the last level there is only advice left."""

        def no_card(*_: Any) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(step, "batch_loss", no_card)
        try:
            with pytest.raises(OutOfMemory, match=r"one sequence and layers recomputed.*data\.max_length=") as caught:
                gradient(trainable, job, job.dataset.train[:4], 4)
        finally:
            trainable.layers.set("off")
        assert caught.value.exit_code == 14
