"""What a run tells: the record file, the console, the Prometheus port, the trackers."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from trainer import metrics, trackers
from trainer.config import resolve
from trainer.errors import ConfigError


def test_records_after_a_step_are_forgotten(tmp_path: Path) -> None:
    """A resumed run logs its steps again: the file then holds each step once, and a cut-off line does no harm."""
    path = tmp_path / "metrics.jsonl"
    lines = metrics.JsonLines(path)
    for step in (1, 2, 3):
        lines.log({"step": step, "loss": float(step)})
    lines.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    lines = metrics.JsonLines(path)
    lines.forget_after(2)
    lines.log({"step": 3, "loss": 9.0})
    lines.close()
    assert [(r["step"], r["loss"]) for r in metrics.read(path)] == [(1, 1.0), (2, 2.0), (3, 9.0)]


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """In a container's log each record is one line with its units."""
    console = metrics.Console(10, 0)
    console.log({"step": 4, "time": 0, "loss": 1.23456, "lr": 1e-4, "tokens_per_second": 99.6, "gpu_watts": 300.2})
    console.close()
    assert capsys.readouterr().err == "step 4/10  loss 1.2346  lr 1.00e-04  100 tok/s  300 W\n"


def test_prometheus_serves_the_newest_values() -> None:
    """A scrape sees each measurement as a gauge with the run's name."""
    server = metrics.Prometheus(0, "first")
    try:
        server.log({"step": 1, "loss": 3.0})
        server.log({"step": 2, "loss": 2.5})
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        server.close()
    assert 'trainer_loss{run="first"} 2.5' in text
    assert 'trainer_step{run="first"} 2.0' in text


def test_no_card_is_no_error() -> None:
    """Without a card or its driver the sensor is empty."""
    assert set(metrics.GpuSensor().read()) <= {"gpu_watts", "gpu_celsius"}


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name and the way out are in the error."""
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    config = resolve("tiny", sets=["run.trackers=[wandb]"]).config
    with pytest.raises(ConfigError, match="Tracker 'wandb' is not installed"):
        trackers.open_trackers(tmp_path, config, 0, print)


def test_a_tracker_that_fails_ends_no_run(tmp_path: Path) -> None:
    """What it said is told once, the other listeners go on, and it is not tried again."""
    (tmp_path / "tensorboard").write_text("in the way of the folder")
    warned: list[str] = []
    config = resolve("tiny", sets=["run.trackers=[tensorboard]"]).config
    listeners = trackers.open_trackers(tmp_path, config, 0, warned.append)
    stream = metrics.Metrics([*listeners, metrics.JsonLines(tmp_path / "metrics.jsonl")])
    stream.log({"step": 1, "time": 1.0, "loss": 2.0})
    stream.close()
    assert len(warned) == 1
    assert "Tracker 'tensorboard' failed and is left out" in warned[0]
    assert "File exists" in warned[0]
    assert [r["loss"] for r in metrics.read(tmp_path / "metrics.jsonl")] == [2.0]


def test_surroundings_name_the_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training container tracks without being told; a person's own setting wins, and a wrong name is refused."""
    monkeypatch.setenv("AGENT_LOOP_TRACKERS", "tensorboard, mlflow")
    found = resolve("tiny")
    assert found.config.run.trackers == ("tensorboard", "mlflow")
    assert found.origins["run.trackers"] == "AGENT_LOOP_TRACKERS"
    assert resolve("tiny", sets=["run.trackers=[]"]).config.run.trackers == ()
    monkeypatch.setenv("AGENT_LOOP_TRACKERS", "tensorbord")
    with pytest.raises(ConfigError, match="AGENT_LOOP_TRACKERS"):
        resolve("tiny")


@pytest.mark.slow  # importing MLflow and migrating its database takes half a minute
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_one_run_over_a_resume(tmp_path: Path) -> None:
    """Settings and measurements go to a SQLite file beside the runs; a resumed run goes on in the same MLflow run."""
    from mlflow import MlflowClient

    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    config = resolve("tiny").config
    for step in (1, 2):
        tracker = trackers.MLflow(run, config, step - 1)
        tracker.log({"step": step, "time": 1.0, "loss": 3.0 - step})
        tracker.close()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("agent-loop").experiment_id])  # type: ignore[union-attr]
    assert found.info.status == "FINISHED"
    assert found.data.params["lora.rank"] == "16"
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "loss")] == [(1, 2.0), (2, 1.0)]


@pytest.mark.slow  # starts Weights & Biases' own background service
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an account the measurements are in files that `wandb sync` takes."""
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "first"
    run.mkdir()
    tracker = trackers.WandB(run, resolve("tiny").config, 0)
    tracker.log({"step": 1, "time": 1.0, "loss": 2.0})
    tracker.close()
    assert [p for p in run.rglob("*.wandb") if p.stat().st_size > 0]
    assert os.environ.get("WANDB_MODE") is None
