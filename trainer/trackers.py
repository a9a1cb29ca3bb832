"""Experiment trackers as listeners of the metrics; each library is imported only when it is asked for.

tensorboard   event files in RUN/tensorboard
mlflow        $MLFLOW_TRACKING_URI, or a SQLite file beside the runs (OUTPUT/mlflow.db)
wandb         offline files in RUN/wandb unless WANDB_MODE says otherwise; `wandb sync` uploads them

A tracker that fails is said once and left out: no page that is down ends a run, and `metrics.jsonl` has everything.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .config import flatten
from .errors import ConfigError
from .metrics import Console, Listener, Prometheus, Record, Teller
from .settings import TrainConfig


class TensorBoard:
    """Scalars by step; after a resume, later steps of the interrupted run are hidden."""

    def __init__(self, run: Path, config: TrainConfig, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        events: Any = event_pb2  # generated: its names are not known to type checkers
        summaries: Any = summary_pb2
        self._event, self._summary = events.Event, summaries.Summary
        self.writer = EventFileWriter(str(run / "tensorboard"))
        if step:
            import time

            start = events.SessionLog(status=events.SessionLog.START)
            self.writer.add_event(events.Event(wall_time=time.time(), step=step + 1, session_log=start))

    def log(self, record: Record) -> None:
        values = [
            self._summary.Value(tag=f"train/{name}", simple_value=value)
            for name, value in record.items()
            if name not in ("step", "time")
        ]
        self.writer.add_event(
            self._event(wall_time=record["time"], step=int(record["step"]), summary=self._summary(value=values))
        )

    def tell(self, step: int, texts: Mapping[str, str]) -> None:
        import time

        from tensorboard.plugins.text.summary import text_pb

        for title, text in texts.items():
            summary: Any = text_pb(f"samples/{title}", text)
            self.writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """One MLflow run a training run, found again on resume by the id that is kept in the run's folder."""

    def __init__(self, run: Path, config: TrainConfig, step: int) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.resolve().parent / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=uri)
        kept = run / "mlflow-run-id"
        if kept.exists():
            self.run_id = kept.read_text().strip()
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "agent-loop"
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run_id = self.client.create_run(experiment_id, run_name=run.name).info.run_id
        for key, value in flatten(config.model_dump(mode="json")):
            self.client.log_param(self.run_id, key, value)
        kept.write_text(self.run_id + "\n")

    def log(self, record: Record) -> None:
        from mlflow.entities import Metric

        step, time = int(record["step"]), int(record["time"] * 1000)
        metrics = [Metric(k, float(v), time, step) for k, v in record.items() if k not in ("step", "time")]
        self.client.log_batch(self.run_id, metrics=metrics)

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


class WandB:
    """Weights & Biases, offline unless the person's environment says otherwise."""

    def __init__(self, run: Path, config: TrainConfig, step: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]  # an extra of its own, not among the tests' packages

        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "agent-loop"),
            name=run.name,
            id=run.name,
            resume="allow",
            dir=str(run),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            config=config.model_dump(mode="json"),
        )

    def log(self, record: Record) -> None:
        step = int(record["step"])
        self.run.log({k: v for k, v in record.items() if k not in ("step", "time")}, step=step)

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Path, TrainConfig, int], Listener]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


class Tolerated:
    """A tracker that may fail; after its first failure it hears nothing more. `warn` takes the line to show."""

    def __init__(self, name: str, start: Callable[[], Listener], warn: Callable[[str], None]) -> None:
        self._name, self._warn = name, warn
        self._tracker: Listener | None = None
        self._try(lambda: setattr(self, "_tracker", start()))

    def log(self, record: Record) -> None:
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.log(record))

    def tell(self, step: int, texts: Mapping[str, str]) -> None:
        tracker = self._tracker
        if isinstance(tracker, Teller):
            self._try(lambda: tracker.tell(step, texts))

    def close(self) -> None:
        if (tracker := self._tracker) is not None:
            self._try(tracker.close)

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except ModuleNotFoundError:
            raise  # not installed: that is the person's to know before hours of training
        except Exception as error:
            self._tracker = None
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            self._warn(
                f"Tracker '{self._name}' failed and is left out from here ({type(error).__name__}: {reason}). "
                "metrics.jsonl has everything."
            )


def open_listeners(run: Path, config: TrainConfig, total: int, step: int, say: Callable[[str], None]) -> list[Listener]:
    """All that shows a run's records to somebody: console, Prometheus, trackers."""
    found: list[Listener] = [Console(total, step)]
    if config.run.metrics_port is not None:
        prometheus = Prometheus(config.run.metrics_port, run.name)
        say(f"Metrics on port {prometheus.port}.")
        found.append(prometheus)
    return [*found, *open_trackers(run, config, step, say)]


def open_trackers(run: Path, config: TrainConfig, step: int, warn: Callable[[str], None]) -> list[Listener]:
    """The trackers that `run.trackers` names; `step`: where the run begins or goes on."""
    listeners: list[Listener] = []
    for name in config.run.trackers:
        try:
            listeners.append(Tolerated(name, functools.partial(TRACKERS[name], run, config, step), warn))
        except ModuleNotFoundError as error:
            raise ConfigError(
                [f"Tracker '{name}' is not installed: no {error.name}. Install it, or take it out of run.trackers."]
            ) from None
    return listeners
