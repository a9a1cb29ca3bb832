"""What a run does when a step goes wrong: broken losses, no progress, too little memory, a foreign tokenizer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.left_behind import adapter, cut_back, losses
from trainer import checkpoint, loop, status, step
from trainer.errors import Diverged, OutOfMemory, VocabularyMismatch
from trainer.loop import train

pytestmark = pytest.mark.long


class TestGuards:
    @pytest.mark.parametrize("bad", [float("nan"), 1e6])
    def test_a_broken_step_is_rolled_back_and_left_out(
        self, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
    ) -> None:
        """A loss that is no number, or far above the last ones, leaves no trace but the missing batch."""
        real = step.accumulate
        calls: list[int] = []

        def poisoned(trainable: Any, *args: Any, **kwargs: Any) -> Any:
            loss, micro = real(trainable, *args, **kwargs)
            calls.append(1)
            if len(calls) == 6:
                for parameter in trainable.parameters:
                    parameter.grad.fill_(bad)
                return loss * bad, micro
            return loss, micro

        monkeypatch.setattr(step, "accumulate", poisoned)
        run = tmp_path / "run"
        state = train(prepare(run, "guard.window=3"))
        assert (state.step, state.skipped, state.rollbacks) == (12, [6], 1)
        assert list(losses(run)) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
        assert all(torch.isfinite(w).all() for w in load_file(run / "adapter" / "adapter_model.safetensors").values())
        assert "rolled back to step 4" in (run / "train.log").read_text()

    def test_a_run_that_stays_broken_ends(self, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the allowed roll-backs the error says what to change; the last checkpoint is sound."""
        real = step.batch_loss
        monkeypatch.setattr(step, "batch_loss", lambda *args: real(*args) * float("nan"))
        run = tmp_path / "run"
        with pytest.raises(Diverged, match=r"after 2 roll-backs\. Lower optimizer\.lr") as caught:
            train(prepare(run, "guard.rollbacks=2"))
        assert caught.value.exit_code == 13
        weights = load_file(checkpoint.folders(run / "checkpoints")[-1] / "adapter_model.safetensors")
        assert all(torch.isfinite(w).all() for w in weights.values())

    def test_early_stopping_keeps_the_best(self, prepare: Any, tmp_path: Path) -> None:
        """No progress for `patience` evaluations ends the run, with the best evaluation's adapter."""
        run = tmp_path / "run"
        sets = ("eval.every=1", "eval.patience=2", "eval.min_delta=0.5", "optimizer.lr=1e-9")
        state = train(prepare(run, *sets))
        assert (state.step, state.stopped_early, state.best_step) == (3, True, 1)
        best = run / "checkpoints" / "step-0000001" / "adapter_model.safetensors"
        assert adapter(run) == best.read_bytes()

    def test_a_smaller_micro_batch_outlives_the_process(
        self, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What running out of memory changed stays so for good, and each change is told in one line."""
        real = step.batch_loss

        def small_card(trainable: Any, batch: Any, chunk: int) -> Any:
            if len(batch.ids) > 1 or trainable.layers.level == "off":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(trainable, batch, chunk)

        monkeypatch.setattr(step, "batch_loss", small_card)
        run = tmp_path / "run"
        sets = ("run.max_steps=4", "checkpoint.every=1")
        train(prepare(run, *sets))
        expected = adapter(run)
        cut_back(run, 2)
        train(prepare(run, *sets))
        loaded = checkpoint.load(run / "checkpoints")
        assert loaded is not None
        assert (loaded.state.micro, loaded.state.level) == (1, "selective")
        assert (run / "train.log").read_text().count("Out of memory") == 3  # to 2, to 1, to selective
        assert adapter(run) == expected

    def test_memory_that_runs_out_elsewhere(
        self, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The optimizer's moments are made in its first step: no room for them is a line, and status 14."""

        def full(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(
            loop, "make_optimizer", lambda *_: SimpleNamespace(step=full, param_groups=[], state_dict=dict)
        )
        with pytest.raises(OutOfMemory, match="beside the micro-batches") as caught:
            train(prepare(tmp_path / "run"))
        assert caught.value.exit_code == 14
        assert status.read(tmp_path / "run") is not None

    def test_a_tokenizer_of_another_model(self, prepare: Any, tmp_path: Path) -> None:
        """More tokens than rows in the embedding is told before training, not as an index error on the card."""
        from trainer import tiny

        base = tiny.make(tmp_path / "base", hidden_size=64, intermediate_size=64, num_hidden_layers=1, vocab_size=512)
        with pytest.raises(VocabularyMismatch, match="1024 tokens, 512 rows") as caught:
            train(prepare(tmp_path / "run", base=base))
        assert caught.value.exit_code == 9
