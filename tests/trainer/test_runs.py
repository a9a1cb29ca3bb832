"""Commands on runs: with none, with one at work, with one that is over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trainer import runs, status
from trainer.cli import app

RUNNER = CliRunner()
ROOT = Path(__file__).parents[2]


def run(*words: object) -> Any:
    return RUNNER.invoke(app, [str(w) for w in words])


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`moments(first, second)`: what happens each time a command waits; after the last one Ctrl-C."""

    def happen(*events: Callable[[], object]) -> None:
        left: Iterator[Callable[[], object]] = iter(events)

        def sleep(seconds: float) -> None:
            event = next(left, None)
            if event is None:
                raise KeyboardInterrupt
            event()

        monkeypatch.setattr(runs.time, "sleep", sleep)

    return happen


@pytest.fixture
def working(tmp_path: Path) -> Path:
    """A run of this very process: at step 3 of 12, with a log and two records."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    record(folder, 2, 1.0)
    record(folder, 3, 0.9)
    (folder / "train.log").write_text(json.dumps({"time": 2.5, "event": "Out of memory at step 3"}) + "\n")
    status.write(folder, status.Status("running", 3, 12, 0.9, seconds_left=600.0))
    return folder


def record(folder: Path, step: int, loss: float) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "time": float(step), "loss": loss}) + "\n")


def end(folder: Path, state: str, step: int) -> Callable[[], None]:
    return lambda: status.write(folder, status.Status(state, step, 12))


class TestNoRun:
    def test_the_table_says_so(self, tmp_path: Path, moments: Callable[..., None]) -> None:
        """Listing and watching an empty or missing folder is no error; watching goes on until Ctrl-C."""
        moments(lambda: None)
        for name in ("train-status", "train-monitor"):
            done = run(name, "--output", tmp_path / "none")
            assert done.exit_code == 0
            assert f"No runs in {tmp_path / 'none'}." in done.output.replace("\n", "")

    @pytest.mark.parametrize("name", ["train-logs", "train-stop", "train-clean"])
    def test_nothing_to_act_on(self, name: str, tmp_path: Path) -> None:
        """Status 2 and how to begin, or, for a name that is not there, the names that are."""
        done = run(name, "--output", tmp_path)
        assert done.exit_code == 2
        assert f"No runs in {tmp_path}. Start one with 'train'" in done.stderr
        done = run(name, "other", "--output", tmp_path)
        assert done.exit_code == 2
        assert "No run 'other'" in done.stderr

    def test_nothing_to_delete(self, tmp_path: Path) -> None:
        """All runs' checkpoints of an empty folder are none."""
        done = run("train-clean", "--all", "--output", tmp_path)
        assert (done.exit_code, done.output) == (0, "No checkpoints to delete.\n")


class TestRunningRun:
    def test_status(self, working: Path) -> None:
        """Step, loss and the time that is left."""
        done = run("train-status", "--output", working.parent)
        assert done.output.splitlines()[1].split() == ["one", "running", "3/12", "0.9000", "-", "10", "min"]

    def test_monitor_follows(self, working: Path, moments: Callable[..., None]) -> None:
        """What changes while it watches is shown; Ctrl-C ends it without an error."""
        moments(end(working, "finished", 12))
        done = run("train-monitor", "--output", working.parent)
        assert done.exit_code == 0
        assert "finished" in done.output
        assert "12/12" in done.output

    def test_logs_follow_to_the_end(self, working: Path, moments: Callable[..., None]) -> None:
        """Log and records in order, each once; with -f new ones too, until the run is over."""
        moments(lambda: record(working, 4, 0.8), end(working, "finished", 4))
        lines = run("train-logs", "one", "-f", "--output", working.parent).output.splitlines()
        assert [line.split("  ", 1)[1] for line in lines] == [
            "step 2  loss 1.0000",
            "Out of memory at step 3",
            "step 3  loss 0.9000",
            "step 4  loss 0.8000",
        ]

    def test_a_line_that_a_crash_cut_off(self, working: Path, moments: Callable[..., None]) -> None:
        """Half a line at the end of either file is passed over."""
        moments()
        for name in ("metrics.jsonl", "train.log"):
            with (working / name).open("a") as file:
                file.write('{"time": 4, "st')
        assert len(run("train-logs", "--output", working.parent).output.splitlines()) == 3

    def test_logs_without_follow_end_at_once(self, working: Path, moments: Callable[..., None]) -> None:
        """The last lines, and no waiting."""
        moments()
        lines = run("train-logs", "-n", 1, "--output", working.parent).output.splitlines()
        assert [line.split("  ", 1)[1] for line in lines] == ["step 3  loss 0.9000"]

    def test_stop_waits_for_the_checkpoint(self, working: Path, moments: Callable[..., None]) -> None:
        """The run is asked, and the command ends when it has saved."""
        moments(lambda: None, end(working, "stopped", 5))
        done = run("train-stop", "--output", working.parent)
        assert done.output == "one: stopped at step 5.\n"
        assert status.asked_to_stop(working)

    def test_a_run_that_takes_long_to_stop(self, working: Path) -> None:
        """After --wait the command says where to look; the wish stays."""
        done = run("train-stop", "--wait", 0, "--output", working.parent)
        assert done.exit_code == 1
        assert "Still running after 0 s, one on " in done.stderr
        assert status.asked_to_stop(working)

    def test_the_newest_is_meant(self, working: Path, moments: Callable[..., None]) -> None:
        """Without a name, the run that changed last."""
        older = working.parent / "older"
        shutil.copytree(working, older)
        os.utime(older / "config.json", (1, 1))
        os.utime(older, (1, 1))
        moments(end(working, "stopped", 5))
        assert "one: stopped" in run("train-stop", "--output", working.parent).output


class TestFailedRun:
    def test_the_reason_is_in_the_table(self, working: Path) -> None:
        """A run that failed shows why, below its line."""
        status.write(working, status.Status("failed", 3, 12, message="Disk full at checkpoint step-0000004."))
        lines = run("train-status", "--output", working.parent).output.splitlines()
        assert lines[2].strip() == "Disk full at checkpoint step-0000004."


@pytest.mark.parametrize(
    "name",
    [
        "train-gemma-2b",
        "train-gemma-9b",
        "train-custom",
        "train-monitor",
        "train-status",
        "train-logs",
        "train-stop",
        "train-clean",
    ],
)
def test_make_has_each_name(name: str) -> None:
    """`make NAME` runs it in the training container, with MODEL= and DATA= where they mean something."""
    words = ["make", "-n", name, "MODEL=some/model", "DATA=chats.jsonl"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    given = " --model some/model --data chats.jsonl" if "-custom" in name or "gemma" in name else ""
    assert f"agent-loop job {name}{given}" in done.stdout


@pytest.mark.long
class TestFinishedRun:
    @pytest.fixture
    def output(self, trained: Path, tmp_path: Path) -> Path:
        shutil.copytree(trained, tmp_path / "runs" / "one", symlinks=True)
        return tmp_path / "runs"

    def test_status_and_logs(self, output: Path) -> None:
        """The table has the run's state; the log has every step in order."""
        assert "finished        12/12" in run("train-status", "--output", output).output
        lines = run("train-logs", "one", "--output", output, "-n", 100).output.splitlines()
        assert [int(x.split("step ")[1].split()[0]) for x in lines if "  loss" in x] == list(range(1, 13))

    def test_there_is_nothing_to_wait_for(self, output: Path, moments: Callable[..., None]) -> None:
        """Following its log ends at once, and stopping it says that it is over."""
        moments()
        assert run("train-logs", "one", "-f", "--output", output).exit_code == 0
        assert run("train-stop", "one", "--output", output).output == "one is not running (finished).\n"
        assert not status.asked_to_stop(output / "one")

    def test_a_dead_process_is_not_running(self, output: Path) -> None:
        """A run whose process is gone reads as lost, and stopping it says so."""
        status.write(output / "one", status.Status("running", 3, 12))
        text = (output / "one" / "status.json").read_text()
        (output / "one" / "status.json").write_text(text.replace(f'"pid": {os.getpid()}', '"pid": 999999'))
        assert "lost" in run("train-status", "--output", output).output
        assert "is not running (lost)" in run("train-stop", "one", "--output", output).output

    def test_clean_asks_and_names_what_it_deletes(self, output: Path) -> None:
        """Without a yes nothing goes; with it the checkpoints go and the adapter stays."""
        done = RUNNER.invoke(app, ["train-clean", "one", "--output", str(output)], input="n\n")
        assert done.exit_code == 1
        assert "step-0000012" in done.output
        assert len(list((output / "one" / "checkpoints").glob("step-*"))) == 4
        assert run("train-clean", "one", "--output", output, "--yes").exit_code == 0
        assert not list((output / "one" / "checkpoints").iterdir())
        assert (output / "one" / "adapter" / "adapter_model.safetensors").exists()

    def test_clean_leaves_a_running_run(self, output: Path) -> None:
        """Checkpoints of a run at work are not deleted."""
        status.write(output / "one", status.Status("running", 3, 12))
        assert "is running: kept" in run("train-clean", "--all", "--output", output, "--yes").output
        assert len(list((output / "one" / "checkpoints").glob("step-*"))) == 4

    @pytest.mark.slow  # a process of its own imports everything
    def test_stop_and_go_on(self, tmp_path: Path) -> None:
        """train-stop ends a running process with 75 after it saved; the same command finishes the run."""
        words = [sys.executable, "-m", "trainer", "train", "--model", "tiny", "--output", str(tmp_path)]
        words += ["--run-id", "one", "--max-steps", "8", "--set", "run.epochs=20"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            found = status.read(tmp_path / "one")
            if found is not None and found.state == "running":
                break
            time.sleep(0.1)
        assert "one: stopped at step" in run("train-stop", "one", "--output", tmp_path).output
        assert process.wait(60) == 75
        assert subprocess.run(words, capture_output=True).returncode == 0
