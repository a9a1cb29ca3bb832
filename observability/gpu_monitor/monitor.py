"""One sampler, two sinks: each second one reading of every card goes to a JSONL file and to Prometheus alike.

Without a GPU it runs on, says `gpu_up 0`, and looks again every ten seconds.
A line of the file: `time`, `gpu_up` 1 and the fields of `nvml.Reading`; or `gpu_up` 0 and `reason`, once a change.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from pathlib import Path

from prometheus_client import CollectorRegistry

from observability import names
from observability.exposition import Series
from observability.gpu_monitor import training
from observability.gpu_monitor.nvml import Cards, GpuUnavailable, Reading
from observability.rotation import RotatingLines

EACH = 1.0
WITHOUT = 10.0
"""Seconds between samples; and between looks for a GPU where there is none."""

_GAUGES = (
    (names.GPU_UTILIZATION, "utilization_ratio"),
    (names.GPU_MEMORY_USED, "memory_used_bytes"),
    (names.GPU_MEMORY_TOTAL, "memory_total_bytes"),
    (names.GPU_POWER, "power_watts"),
    (names.GPU_POWER_LIMIT, "power_limit_watts"),
    (names.GPU_TEMPERATURE, "temperature_celsius"),
    (names.GPU_CLOCK, "sm_clock_hertz"),
)
_METRICS = (
    *(metric for metric, _ in _GAUGES),
    names.GPU_UP,
    names.GPU_ECC,
    names.GPU_XID,
    names.TRAINING_RUNNING,
    names.TRAINING_STEP,
    names.TRAINING_LOSS,
    names.TRAINING_STEP_SECONDS,
    names.TRAINING_TOKENS,
    names.TRAINING_CHECKPOINT,
)


class Monitor:
    """Samples cards and, with `runs`, the newest training run."""

    def __init__(self, cards: Cards, log: Path, registry: CollectorRegistry, *, runs: Path | None = None) -> None:
        self._cards = cards
        self._log = RotatingLines(log)
        self._series = Series(_METRICS, registry)
        self._runs = runs
        self._ecc: dict[str, int] = {}
        self._reason: str | None = None
        self.last = 0.0
        """When the last sample was taken (seconds since 1970), of cards or of their absence."""
        self.problem = ""
        """Why the log could not be written; empty while it can."""

    def sample(self, now: float) -> bool:
        """Take one sample for both sinks; returns whether a GPU answered. A full disk loses lines, nothing else."""
        try:
            readings = self._cards.read()
        except GpuUnavailable as error:
            self._none(str(error), now)
            up = False
        else:
            self._some(readings, now)
            up = True
        if self._runs is not None:
            self._training(training.newest(self._runs, now))
        self.last = now
        return up

    def run(self, stop: threading.Event) -> None:
        """Sample until `stop` is set."""
        try:
            while not stop.is_set():
                began = time.monotonic()
                up = self.sample(time.time())
                stop.wait(max(0.0, (EACH if up else WITHOUT) - (time.monotonic() - began)))
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the cards and the file."""
        self._cards.close()
        self._log.close()

    def _some(self, readings: list[Reading], now: float) -> None:
        self._reason = None
        self._series.set(names.GPU_UP, 1)
        for reading in readings:
            labels = {"gpu": reading.gpu, "uuid": reading.uuid, "model": reading.model}
            for metric, field in _GAUGES:
                value = getattr(reading, field)
                if value is not None:
                    self._series.set(metric, value, **labels)
            if reading.ecc_uncorrected_errors is not None:
                # The card counts since it was made; the counter shows what was added while we looked.
                before = self._ecc.get(reading.uuid, reading.ecc_uncorrected_errors)
                self._series.inc(names.GPU_ECC, max(0, reading.ecc_uncorrected_errors - before), **labels)
                self._ecc[reading.uuid] = reading.ecc_uncorrected_errors
            self._write({"time": round(now, 3), "gpu_up": 1, **asdict(reading)})
        for gpu, xid in self._cards.errors():
            self._series.inc(names.GPU_XID, gpu=gpu, xid=str(xid))
            self._write({"time": round(now, 3), "gpu_up": 1, "gpu": gpu, "xid": xid})

    def _none(self, reason: str, now: float) -> None:
        self._series.set(names.GPU_UP, 0)
        for metric, _ in _GAUGES:
            self._series.clear(metric)
        if reason != self._reason:
            self._write({"time": round(now, 3), "gpu_up": 0, "reason": reason})
        self._reason = reason

    def _write(self, record: dict[str, object]) -> None:
        try:
            self._log.write(json.dumps(record))
            self.problem = ""
        except OSError as error:
            self.problem = f"Cannot write the log: {error}."

    def _training(self, progress: training.Progress | None) -> None:
        self._series.set(names.TRAINING_RUNNING, float(progress is not None and progress.running))
        pairs = (
            (names.TRAINING_STEP, "step"),
            (names.TRAINING_LOSS, "loss"),
            (names.TRAINING_STEP_SECONDS, "step_seconds"),
            (names.TRAINING_TOKENS, "tokens_per_second"),
            (names.TRAINING_CHECKPOINT, "checkpoint_time"),
        )
        for metric, field in pairs:
            self._series.clear(metric)
            value = getattr(progress, field, None)
            if progress is not None and value is not None:
                self._series.set(metric, float(value), run=progress.run)
