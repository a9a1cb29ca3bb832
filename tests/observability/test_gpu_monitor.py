"""GPU monitor: one sample, two sinks; cards that lack fields, vanish, fail or never were."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
from prometheus_client import CollectorRegistry

from observability.gpu_monitor import training
from observability.gpu_monitor.monitor import Monitor
from observability.gpu_monitor.nvml import Cards, GpuUnavailable
from tests.fakes.nvml import Card, FakeNvml

pytestmark = pytest.mark.in_image

LABELS = {"gpu": "0", "uuid": "GPU-0a1b", "model": "NVIDIA GeForce RTX 4090"}


class Watched:
    """A monitor on fake cards with a look into both sinks."""

    def __init__(self, nvml: FakeNvml, folder: Path, runs: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self.log = folder / "logs" / "gpu_metrics.jsonl"
        self.monitor = Monitor(Cards(nvml), self.log, self.registry, runs=runs)
        self._now = 1000.0

    def sample(self) -> bool:
        """One more second."""
        self._now += 1
        return self.monitor.sample(self._now)

    def value(self, name: str, **labels: str) -> float | None:
        """What Prometheus would see."""
        return self.registry.get_sample_value(name, labels)

    def lines(self) -> list[dict[str, Any]]:
        """What the file holds."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Watch = Callable[..., Watched]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Makes monitors whose log lies below this test's folder, and closes them."""
    made: list[Watched] = []

    def make(nvml: FakeNvml, runs: Path | None = None) -> Watched:
        made.append(Watched(nvml, tmp_path, runs))
        return made[-1]

    yield make
    for watched in made:
        watched.monitor.close()


def test_both_sinks_hold_the_same_sample(tmp_path: Path, watch: Watch) -> None:
    """Every gauge equals the field of the line written for the same sample, in base units."""
    watched = watch(FakeNvml())
    assert watched.sample()
    line = watched.lines()[0]
    assert line["power_watts"] == 310.5
    assert line["utilization_ratio"] == 0.73
    assert line["memory_total_bytes"] == 24 << 30
    assert watched.value("gpu_up") == line["gpu_up"] == 1
    for metric, field in (
        ("gpu_utilization_ratio", "utilization_ratio"),
        ("gpu_memory_used_bytes", "memory_used_bytes"),
        ("gpu_memory_total_bytes", "memory_total_bytes"),
        ("gpu_power_watts", "power_watts"),
        ("gpu_power_limit_watts", "power_limit_watts"),
        ("gpu_temperature_celsius", "temperature_celsius"),
        ("gpu_sm_clock_hertz", "sm_clock_hertz"),
    ):
        assert watched.value(metric, **LABELS) == line[field], metric


def test_no_driver_is_reported_and_not_fatal(tmp_path: Path, watch: Watch) -> None:
    """Without NVIDIA's library it says gpu_up 0, and writes the reason once, not each time."""
    watched = watch(FakeNvml(missing=True))
    assert [watched.sample() for _ in range(3)] == [False] * 3
    assert watched.value("gpu_up") == 0
    assert [(line["gpu_up"], line["reason"]) for line in watched.lines()] == [(0, "NVML Shared Library Not Found")]


def test_this_machine_is_read_or_said_to_have_none() -> None:
    """The real library: readings of the cards, or the reason why there are none; never another exception."""
    cards = Cards()
    try:
        found = [reading.uuid for reading in cards.read()]
    except GpuUnavailable as reason:
        found = [str(reason)]
    finally:
        cards.close()
    assert found
    assert all(found)


def test_fields_that_a_card_lacks_are_left_out(tmp_path: Path, watch: Watch) -> None:
    """A consumer card without power or ECC readings gives the others; sentinel values are no readings."""
    watched = watch(FakeNvml([Card(power=None, limit=(1 << 64) - 1, utilization=9223372036854775794)]))
    assert watched.sample()
    assert watched.value("gpu_power_watts", **LABELS) is None
    assert watched.value("gpu_power_limit_watts", **LABELS) is None
    assert watched.value("gpu_utilization_ratio", **LABELS) is None
    assert watched.value("gpu_temperature_celsius", **LABELS) == 64
    assert watched.value("gpu_ecc_uncorrected_errors_total", **LABELS) is None


def test_a_lost_card_comes_back(tmp_path: Path, watch: Watch) -> None:
    """While the driver fails gpu_up is 0 and stale gauges are gone; when it works again they return."""
    nvml = FakeNvml()
    watched = watch(nvml)
    assert watched.sample()
    nvml.broken = pynvml.NVML_ERROR_GPU_IS_LOST
    assert not watched.sample()
    assert watched.value("gpu_up") == 0
    assert watched.value("gpu_temperature_celsius", **LABELS) is None
    assert nvml.opened == 0
    nvml.broken = 0
    assert watched.sample()
    assert watched.value("gpu_temperature_celsius", **LABELS) == 64
    assert [line["gpu_up"] for line in watched.lines()] == [1, 0, 1]


def test_driver_errors_are_counted_by_number(tmp_path: Path, watch: Watch) -> None:
    """Each XID event is counted and written once."""
    nvml = FakeNvml()
    watched = watch(nvml)
    watched.sample()
    nvml.xids += [(0, 79), (0, 13), (0, 79)]
    watched.sample()
    watched.sample()
    assert watched.value("gpu_xid_errors_total", gpu="0", xid="79") == 2
    assert watched.value("gpu_xid_errors_total", gpu="0", xid="13") == 1
    assert [line["xid"] for line in watched.lines() if "xid" in line] == [79, 13, 79]


def test_only_new_memory_errors_count(tmp_path: Path, watch: Watch) -> None:
    """A card that came with 7 errors in its life starts at 0; two more make 2."""
    nvml = FakeNvml([Card(ecc=7)])
    watched = watch(nvml)
    watched.sample()
    assert watched.value("gpu_ecc_uncorrected_errors_total", **LABELS) == 0
    nvml.cards[0].ecc = 9
    watched.sample()
    assert watched.value("gpu_ecc_uncorrected_errors_total", **LABELS) == 2


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, watch: Watch) -> None:
    """With the log's folder in the way of a file, Prometheus still gets its samples and the problem is named."""
    (tmp_path / "logs").write_text("a file where the folder should be")
    watched = watch(FakeNvml())
    assert watched.sample()
    assert watched.value("gpu_up") == 1
    assert "Cannot write the log" in watched.monitor.problem


def test_it_ends_when_told(tmp_path: Path, watch: Watch) -> None:
    """The loop ends with the event and lets go of the library."""
    nvml = FakeNvml()
    watched = watch(nvml)
    stop = threading.Event()
    thread = threading.Thread(target=watched.monitor.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert nvml.opened == 0


class TestTraining:
    """The bridge from a run folder to series."""

    def write(self, folder: Path, name: str, *, state: str, updated: float, steps: list[dict[str, Any]]) -> Path:
        """A run as the trainer leaves it on disk."""
        run = folder / name
        (run / "checkpoints" / "step-0000010").mkdir(parents=True)
        (run / "checkpoints" / "step-0000010" / "manifest.json").write_text("{}")
        os.utime(run / "checkpoints" / "step-0000010" / "manifest.json", (900, 900))
        (run / "checkpoints" / "step-0000020").mkdir()  # not complete: no manifest
        (run / "status.json").write_text(json.dumps({"state": state, "updated": updated}))
        (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps) + '{"step": 99, "lo')
        for file in ("status.json", "metrics.jsonl"):
            os.utime(run / file, (updated, updated))
        return run

    STEPS = (
        {"step": 10, "time": 980.0, "loss": 2.5, "tokens_per_second": 100.0},
        {"step": 11, "time": 984.0, "eval_loss": 3.0},
        {"step": 20, "time": 1000.0, "loss": 2.25, "tokens_per_second": 110.0},
    )

    def test_the_newest_run_is_shown(self, tmp_path: Path, watch: Watch) -> None:
        """Loss, step, seconds a step and the last complete checkpoint of the run that changed last."""
        self.write(tmp_path, "old", state="running", updated=500, steps=[])
        self.write(tmp_path, "new", state="running", updated=1000, steps=list(self.STEPS))
        watched = watch(FakeNvml(missing=True), runs=tmp_path)
        watched.sample()
        assert watched.value("training_running") == 1
        assert watched.value("training_loss", run="new") == 2.25
        assert watched.value("training_step", run="new") == 20
        assert watched.value("training_step_seconds", run="new") == 2.0
        assert watched.value("training_tokens_per_second", run="new") == 110
        assert watched.value("training_last_checkpoint_timestamp_seconds", run="new") == 900
        assert watched.value("training_loss", run="old") is None

    @pytest.mark.parametrize(
        ("state", "now", "running"), [("running", 1060, True), ("running", 1300, False), ("finished", 1010, False)]
    )
    def test_a_run_that_says_nothing_is_not_running(
        self, state: str, now: float, running: bool, tmp_path: Path
    ) -> None:
        """Running means saying so, and a sign of life within two minutes."""
        self.write(tmp_path, "run", state=state, updated=1000, steps=list(self.STEPS))
        progress = training.newest(tmp_path, now)
        assert progress is not None
        assert progress.running is running

    def test_no_run_at_all(self, tmp_path: Path) -> None:
        """An empty or missing folder is no run, and not an error."""
        assert training.newest(tmp_path, 0) is None
        assert training.newest(tmp_path / "missing", 0) is None
