"""`benchmarks/gpu.py` on a machine without a card: what it would run, and a line for everything that can go wrong."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.training import arms, workload
from trainer import cards

SCRIPT = Path(gpu.__file__)


def options(*words: str) -> argparse.Namespace:
    return gpu.parse(["--device", "cpu", *words])


def planned(name: str, card: str | None, *words: str) -> dict[str, Any]:
    found = cards.by_name(card) if card else None
    return arms.describe(name, gpu.parse([*(() if card else ("--device", "cpu")), *words]), found)


class TestPlan:
    def test_every_arm_has_a_line_without_torch(self, tmp_path: Path) -> None:
        """--plan answers for a card that is not here, and imports nothing heavy."""
        words = ["--plan", "--card", "rtx-4090", "--work", str(tmp_path)]
        code = f"import runpy, sys; sys.argv = ['gpu.py', *{words}]\n"
        code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__'); assert 'torch' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["arm"] for line in done.stdout.splitlines()] == list(arms.ARMS)

    def test_the_safe_arm_takes_nothing_for_granted(self) -> None:
        """Recomputed layers, NF4, no compilation, on any card; the planned arm follows the plan."""
        safe, chosen = planned("ours-safe", "h200"), planned("ours-planned", "h200")
        assert (safe["recompute"], safe["resident"], safe["compile"], safe["micro"]) == ("full", False, False, 4)
        assert (chosen["recompute"], chosen["resident"], chosen["compile"]) == ("off", True, True)
        assert planned("ours-liger", "h200") == chosen | {
            "arm": "ours-liger",
            "compile": False,
            "needs": ["liger_kernel"],
        }
        assert safe["planned_bytes"] < chosen["planned_bytes"] < 141 * cards.GIB

    def test_attention(self) -> None:
        """TRL pads, and gets what transformers has for Gemma 2 then; on Gemma 3 all arms are equal; a CPU is eager."""
        assert planned("trl", "h100")["attention"] == "eager"
        assert planned("trl-flat", "h100")["attention"] == "flex_attention"
        for name in ("trl", "trl-flat", "ours-safe"):
            assert planned(name, "h100", "--shape", "gemma-3-1b")["attention"] == "sdpa"
            assert planned(name, None)["attention"] == "eager"

    @pytest.mark.parametrize("words", [(), ("--workload", "chat"), ("--shape", "tiny", "--workload", "chat")])
    def test_all_arms_get_the_same_rows_a_step(self, words: tuple[str, ...]) -> None:
        """However rows are laid out, a step has the same number of them, in whole micro-batches."""
        lines = [planned(name, "h100", *words) for name in arms.ARMS]
        assert len({line["rows_a_step"] for line in lines}) == 1
        for line in lines:
            if not line["arm"].startswith("ours"):
                assert line["rows_a_step"] % line["micro"] == 0

    def test_chats_are_as_described(self) -> None:
        """A mean of about 220 tokens, at most 1024, two fifths learned, the same draw each time."""
        rows = workload.rows(options("--workload", "chat"), 1000, 4000)
        lengths = [len(row) for row in rows]
        assert 190 < sum(lengths) / len(lengths) < 230
        assert max(lengths) == 1024
        assert sum(int(row.supervised.sum()) for row in rows) / sum(lengths) == pytest.approx(0.4, abs=0.01)
        again = workload.rows(options("--workload", "chat"), 1000, 10)
        assert [row.ids.tolist() for row in again] == [row.ids.tolist() for row in rows[:10]]

    def test_unknown_arms(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A misspelt arm is refused before hours of others."""
        with pytest.raises(SystemExit):
            options("--arms", "ours-safe,trll")
        assert "no arm trll; there are ours-safe, " in capsys.readouterr().err


class TestLines:
    @pytest.mark.parametrize(
        ("script", "line"),
        [
            ('print(\'noise\'); print(\'{"arm": "trl", "x": 1}\')', {"x": 1}),
            ("import os; os.kill(os.getpid(), 9)", {"error": "killed: most often the machine's memory ran out"}),
            ("import os; os.abort()", {"error": "died of SIGABRT"}),
            ("raise RuntimeError('no kernel image')", {"error": "RuntimeError: no kernel image"}),
            ("import sys; sys.exit(3)", {"error": "exit status 3"}),
            ("import time; time.sleep(60)", {"error": "took longer than 1 s"}),
        ],
    )
    def test_whatever_an_arm_does_gives_a_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, line: dict[str, Any]
    ) -> None:
        """An arm that ends well, is killed, crashes, fails or hangs: one line that says so, and no exception."""
        (tmp_path / "arm.py").write_text(script)
        monkeypatch.setattr(gpu, "__file__", str(tmp_path / "arm.py"))
        timeout = "1" if "sleep" in script else "60"
        assert gpu.in_process("trl", options("--timeout", timeout)) == {"arm": "trl", **line}

    def test_memory_that_runs_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The card's and the machine's are told as what they are."""
        import torch

        for error in (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), MemoryError("of the machine")):

            def fail(*_: object, error: BaseException = error) -> None:
                raise error

            monkeypatch.setattr(arms, "measure", fail)
            found = gpu.attempt("ours-safe", options())
            assert found["error"] == f"out of memory: {str(error).splitlines()[0]}"

    def test_what_is_not_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A library that is not installed, kernels for cards alone, and no card: each has its reason."""
        import torch

        monkeypatch.setattr(arms, "find_spec", lambda name: None if name == "unsloth" else object())
        assert gpu.attempt("unsloth", options())["skipped"] == "not installed: unsloth"
        assert gpu.attempt("ours-liger", options())["skipped"] == "its kernels are for cards alone"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert gpu.attempt("ours-safe", gpu.parse([]))["skipped"].startswith("torch sees no card")


class TestComparison:
    LINE: dict[str, Any] = {  # noqa: RUF012 - never changed
        "arm": "trl",
        "shape": "gemma-2b",
        "workload": "packed",
        "device": "NVIDIA H100 80GB HBM3",
        "first_loss": 12.5,
        "tokens_per_second": 10_000.0,
        "processor_seconds_per_step": 2.0,
        "peak_bytes": 40,
        "teraflops": 100.0,
    }

    def test_ratios_and_goals(self) -> None:
        """Speed and memory beside TRL's, the share of the ceiling, and of what was set as a goal on a Hopper card."""
        ours = {**self.LINE, "arm": "ours-planned", "tokens_per_second": 33_000.0, "peak_bytes": 30, "teraflops": 330.0}
        lines = [
            {"arm": "ceiling", "teraflops": 660.0},
            ours,
            self.LINE,
            {"arm": "unsloth", "skipped": "not installed"},
        ]
        found = gpu.compare(lines)
        assert found["same_first_loss"] is True
        assert found["ours-planned"] == {
            "of_ceiling": 0.5,
            "speed": 3.3,
            "processor": 1.0,
            "memory": 0.75,
            "of_goal": 1.1,
        }
        assert "unsloth" not in found
        assert "of_goal" not in gpu.compare([{**ours, "device": "NVIDIA GeForce RTX 4090"}])["ours-planned"]

    def test_another_loss_is_another_computation(self) -> None:
        """Arms that do not begin alike are not comparable; one arm alone is neither."""
        assert (
            gpu.compare([self.LINE, {**self.LINE, "arm": "ours-safe", "first_loss": 12.6}])["same_first_loss"] is False
        )
        assert gpu.compare([self.LINE])["same_first_loss"] is None


@pytest.mark.slow  # two processes that import everything and train
def test_a_whole_run_on_the_cpu(tmp_path: Path) -> None:
    """The driver's lines on the tiny model: the ceiling, our arm with its figures, one that is not here, ratios."""
    words = ["--shape", "tiny", "--device", "cpu", "--steps", "1", "--warmup", "1", "--length", "64"]
    words += ["--arms", "ours-safe,unsloth", "--work", str(tmp_path)]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    limit, ours, unsloth, ratios = map(json.loads, done.stdout.splitlines())
    assert limit["teraflops"] > 0
    assert ours["first_loss"] == pytest.approx(6.93, abs=0.2)  # the logarithm of 1024 tokens
    assert ours["tokens_per_second"] > 0
    assert ours["peak_bytes"] > ours["planned_bytes"]
    assert unsloth["skipped"]
    assert ratios["ours-safe"]["of_ceiling"] > 0
