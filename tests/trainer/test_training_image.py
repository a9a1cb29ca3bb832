"""`agent-loop call train` in the training image: what a person gets back is a finished, exported and verified run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import agent_loop
from tests.stack.room import needed

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
OPTIONS = f"--max-steps,{STEPS},--set,run.log_every=1,--gguf,q8_0"


def train(target: Path, *words: str) -> Path:
    """Call `train --model tiny` and export the run's folder to `target`."""
    chosen = ("--model", "tiny", f"--options={OPTIONS}", *words)
    done = agent_loop("call", "train", *chosen, "export", "--path", str(target))
    assert done.returncode == 0, done.stderr[-4000:]
    return target


def steps(run: Path) -> list[tuple[int, float]]:
    """Step and loss of every training record."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


def log(run: Path) -> str:
    """What the run said beside its measurements."""
    return (run / "train.log").read_text() if (run / "train.log").exists() else ""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not named."""
    needed(25, "building the training image")  # its environment twice, and uv's cache
    return train(tmp_path_factory.mktemp("call") / "first")


def test_the_run_comes_back(first: Path) -> None:
    """It is finished, has every step, and its adapter is on the base that came with it."""
    import torch

    from trainer.model import load_trained

    status = json.loads((first / "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", STEPS)
    assert [step for step, _ in steps(first)] == list(range(1, STEPS + 1))
    assert (first / "loss.png").stat().st_size > 1000
    assert not (first / "checkpoints").exists(), "checkpoints stay in their cache"
    model = load_trained(first)
    trained = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    assert trained
    assert any(torch.count_nonzero(parameter) for parameter in trained), "adapters begin with B at zero"


def test_triton_could_compile_in_it(first: Path) -> None:
    """A compiler and the headers of the interpreter that trains are there: an extension of Python compiles."""
    gcc = "'gcc -include Python.h -x c -c -o /tmp/launcher.o /dev/null -I' + sysconfig.get_path('include')"
    code = f"import os; import sysconfig; os.system({gcc}) and exit('not compiled'); print('compiled')"
    words = ("with-exec", f"--args=/app/.venv/bin/python,-c,{code}", "stdout")
    done = agent_loop("call", "-s", "build-training", *words)
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]


def test_its_export_was_verified_inside(first: Path) -> None:
    """The GGUF was compared with the trained model by the image's own llama.cpp, and lies in the folder."""
    report = json.loads((first / "export" / "export.json").read_text())
    assert report["verified"] is True
    assert [(first / "export" / entry["file"]).is_file() for entry in report["files"]] == [True]


def test_two_calls_are_two_runs_and_an_id_goes_on(first: Path, tmp_path: Path) -> None:
    """A call without an id begins anew, with the same numbers; a second call with an id finds the run where it was."""
    identity = f"test-{tmp_path.parent.name}-{first.stat().st_ino}"
    second = train(tmp_path / "second", "--run-id", identity)
    assert "Going on" not in log(first) + log(second)
    assert steps(second) == steps(first), "one seed, one machine: the same losses"
    again = train(tmp_path / "again", "--run-id", identity)
    assert f"Going on from step {STEPS} of {STEPS}." in log(again)
    assert steps(again) == steps(second)
