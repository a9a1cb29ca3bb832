"""Whole runs on the smallest base: learning, exact resume, signals, several processes, what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.left_behind import adapter, cut_back, losses
from trainer import checkpoint, metrics, model, status
from trainer.errors import RunBusy, RunChanged, Stopped
from trainer.loop import train

pytestmark = pytest.mark.long


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process and return its number; its exit status is 0, or 1 after an exception."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class TestLearning:
    def test_the_loss_falls_and_the_run_is_complete(self, trained: Path) -> None:
        """Twelve steps lower the loss; adapter, plot, measurements, status and checkpoints are there."""
        seen = losses(trained)
        assert list(seen) == list(range(1, 13))
        assert seen[12] < seen[1] - 0.1  # a random head of this size learns slowly
        assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")
        assert [f.name for f in checkpoint.folders(trained / "checkpoints")] == [f"step-{n:07d}" for n in (0, 4, 8, 12)]
        found = status.read(trained)
        assert found is not None
        assert (found.state, found.step, found.total) == ("finished", 12, 12)
        evaluations = [r for r in metrics.read(trained / "metrics.jsonl") if "eval_loss" in r]
        assert [r["step"] for r in evaluations] == [4, 8, 12]
        assert evaluations[-1]["eval_loss"] < evaluations[0]["eval_loss"]

    def test_what_it_took_is_told_beside_the_plan(self, trained: Path) -> None:
        """One line on time after the first step, one on memory at the end, which is the last record as well."""
        said = (trained / "train.log").read_text()
        assert said.count("A step takes") == 1
        assert "for the 11 left" in said
        assert "planned for tensors" in said.splitlines()[-1]
        last = metrics.read(trained / "metrics.jsonl")[-1]
        assert last.keys() == {"step", "time", "peak_memory_gib", "planned_memory_gib"}
        assert last["peak_memory_gib"] > last["planned_memory_gib"] > 0

    def test_the_adapter_is_what_peft_reads(self, trained: Path, small_base: Path) -> None:
        """PEFT loads the adapter onto the base, and `load_trained` gives the same model; weights are fp32."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        weights = load_file(trained / "adapter" / "adapter_model.safetensors")
        assert {w.dtype for w in weights.values()} == {torch.float32}
        plain = AutoModelForCausalLM.from_pretrained(small_base, dtype=torch.float32, attn_implementation="eager")
        theirs = PeftModel.from_pretrained(plain, str(trained / "adapter")).eval()
        ours = model.load_trained(trained)
        ids = torch.arange(7, 27)[None]
        with torch.no_grad():
            difference = (ours(input_ids=ids).logits - theirs(input_ids=ids).logits).abs().max().item()
        assert difference < 1.0  # theirs has no NF4: close, not equal
        for name, value in checkpoint_weights(ours).items():
            assert torch.equal(value, weights[name]), name

    def test_tensorboard_has_the_curve(self, trained: Path) -> None:
        """Event files hold a point a record."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(trained / "tensorboard"))
        events.Reload()
        points = {e.step: e.value for e in events.Scalars("train/loss")}
        assert points == pytest.approx(losses(trained), rel=1e-6)


def checkpoint_weights(peft_model: Any) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(peft_model)


class TestResume:
    @pytest.mark.parametrize("dropout", [0.0, 0.1])
    @pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
    def test_bit_exact(self, prepare: Any, tmp_path: Path, optimizer: str, dropout: float) -> None:
        """From the middle of an epoch and from its edge (8 steps), a resumed run repeats every loss and every bit."""
        sets = (f"optimizer.name={optimizer}", f"lora.dropout={dropout}", "lora.rank=64")
        run = tmp_path / "run"
        train(prepare(run, *sets))
        expected, curve = adapter(run), losses(run)
        for start in (8, 4):
            cut_back(run, start)
            state = train(prepare(run, *sets))
            assert state.step == 12
            assert losses(run) == curve
            assert adapter(run) == expected

    def test_evaluating_changes_nothing(self, prepare: Any, tmp_path: Path) -> None:
        """A run that evaluates at every step learns what one that never does learns."""
        for name, every in (("never", 0), ("always", 1)):
            train(prepare(tmp_path / name, "lora.dropout=0.1", f"eval.every={every}", "run.max_steps=4"))
        assert adapter(tmp_path / "never") == adapter(tmp_path / "always")

    def test_another_run_is_refused_with_the_differences(self, trained: Path, tmp_path: Path, prepare: Any) -> None:
        """Changed settings and data are named with both values; --force-resume goes on and says so."""
        run = tmp_path / "trained"
        shutil.copytree(trained, run)
        sets = ("lora.rank=64", "eval.every=4", "optimizer.lr=1e-3", "data.max_length=40")
        with pytest.raises(
            RunChanged, match=r"data\.max_length: 96 -> 40; optimizer\.lr: 0\.005 -> 0\.001; data: "
        ) as caught:
            train(prepare(run, *sets))
        assert caught.value.exit_code == 11
        assert train(prepare(run, *sets, "run.max_steps=13", force=True)).step == 13
        assert "Resuming although this changed: optimizer.lr" in (run / "train.log").read_text()

    def test_a_damaged_checkpoint_is_passed_over(self, trained: Path, tmp_path: Path, prepare: Any) -> None:
        """The one before is used, the damage is named, and the result is the same."""
        run = tmp_path / "trained"
        shutil.copytree(trained, run, symlinks=True)
        weights = run / "checkpoints" / "step-0000012" / "optimizer.pt"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        expected = adapter(run)
        shutil.rmtree(run / "adapter")
        train(prepare(run, "lora.rank=64", "eval.every=4"))
        log = (run / "train.log").read_text()
        assert "Damaged checkpoint, step-0000012: optimizer.pt differs from its sha256" in log
        assert "Going on from step 8 of 12" in log
        assert adapter(run) == expected


class TestInterruption:
    def test_a_signal_saves_and_the_same_command_goes_on(self, trained: Path, tmp_path: Path, prepare: Any) -> None:
        """SIGTERM ends the run after the step with a checkpoint of it; going on gives the uninterrupted result."""
        run = tmp_path / "run"
        sets = ("lora.rank=64", "eval.every=4")

        def stop_at_three() -> None:
            while 3 not in losses(run):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=stop_at_three, daemon=True)
        job = prepare(run, *sets)
        thread.start()
        with pytest.raises(Stopped, match=r"SIGTERM at step \d+ of 12, saved") as caught:
            train(job)
        thread.join()
        assert caught.value.exit_code == 75
        stopped = int(checkpoint.folders(run / "checkpoints")[-1].name[5:])
        assert 3 <= stopped < 12
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        train(prepare(run, *sets))
        assert adapter(run) == adapter(trained)

    @pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
    def test_killed_anywhere(self, trained: Path, tmp_path: Path, prepare: Any, count: int) -> None:
        """kill -9 at random moments, checkpoints at every step: each time the run goes on to the same weights."""
        import random

        draw = random.Random(count)
        run = tmp_path / "run"
        sets = ("lora.rank=64", "eval.every=4", "checkpoint.every=1", "checkpoint.keep=2")
        killed = 0
        while True:
            before = len(losses(run))
            child = in_child(lambda: train(prepare(run, *sets)))
            if killed < count:
                deadline = time.monotonic() + 120
                while len(losses(run)) <= before and time.monotonic() < deadline:
                    if os.waitpid(child, os.WNOHANG)[0]:
                        pytest.fail("the run ended before it was killed")
                    time.sleep(0.002)
                time.sleep(draw.random() * 0.1)
                os.kill(child, signal.SIGKILL)
            _, result = os.waitpid(child, 0)
            if killed < count and os.WIFSIGNALED(result):
                killed += 1
                if count > 3 and killed % 3 == 0:
                    shutil.rmtree(run)  # twelve steps hold few kill points: begin again
                continue
            assert os.waitstatus_to_exitcode(result) == 0
            break
        assert killed > 0
        assert adapter(run) == adapter(trained)
        assert losses(run) == losses(trained)
        assert not list((run / "checkpoints").glob(".unfinished*"))

    def test_one_process_a_run(self, trained: Path, prepare: Any) -> None:
        """A run that another process holds is refused and left alone."""
        with status.only_one(trained), pytest.raises(RunBusy, match="another --run-id") as caught:
            train(prepare(trained, "lora.rank=64", "eval.every=4"))
        assert caught.value.exit_code == 15


class TestBackup:
    def test_the_copy_on_the_clock_restores(self, prepare: Any, tmp_path: Path) -> None:
        """The second folder holds verified checkpoints; copied back after a loss, the run goes on from them."""
        run, second = tmp_path / "run", tmp_path / "second"
        sets = (f"checkpoint.backup={second}", "checkpoint.backup_minutes=0.00001", "checkpoint.keep=2")
        train(prepare(run, *sets))
        copies = checkpoint.folders(second / "run")
        assert [c.name for c in copies] == ["step-0000011", "step-0000012"]
        assert [checkpoint.verify(c) for c in copies] == [[], []]
        expected = adapter(run)
        shutil.rmtree(run / "checkpoints")
        shutil.copytree(copies[0], run / "checkpoints" / copies[0].name)
        train(prepare(run, *sets))
        assert adapter(run) == expected


class TestProcesses:
    def test_two_processes_learn_what_one_does(self, prepare: Any, tmp_path: Path) -> None:
        """Two gloo processes with half the batch each end at the single process's weights, and resume together."""
        import socket

        from accelerate.state import AcceleratorState

        def work(rank: int, port: int, run: Path, *sets: str) -> None:
            AcceleratorState._reset_state(reset_partial_state=True)  # the fork inherits one of a single process
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE="2",
                LOCAL_WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                ACCELERATE_USE_CPU="true",
            )
            train(prepare(run, "batch.accumulation=1", "optimizer.lr=2e-3", *sets))

        one, two = tmp_path / "one", tmp_path / "two"
        train(prepare(one, "run.max_steps=10", "optimizer.lr=2e-3"))
        prepare(two, "batch.accumulation=1", "run.max_steps=10", "optimizer.lr=2e-3")  # the folder, once
        for attempt in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            children = [in_child(lambda r=rank, p=port: work(r, p, two, "run.max_steps=10")) for rank in (0, 1)]
            assert [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children] == [0, 0]
            ours, theirs = (load_file(r / "adapter" / "adapter_model.safetensors") for r in (one, two))
            assert max((ours[k] - theirs[k]).abs().max().item() for k in ours) < 2e-3
            assert losses(two) == pytest.approx(losses(one), rel=1e-3)
            if attempt == 0:
                expected = adapter(two)
                cut_back(two, 4)
            else:
                assert adapter(two) == expected
