"""Speed and memory as measured, beside the plan's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trainer import cards, meter, plan, presets
from trainer.config import resolve
from trainer.meter import Meter
from trainer.plan import Plan, Work
from trainer.shape import Shape

GB = 1_000_000_000


@pytest.fixture
def planned() -> Plan:
    """gemma-2b on an RTX 4090, ten million tokens in 100 steps, not compiled."""
    shape = Shape.read(presets.PRESETS["gemma-2b"].shape)
    config = resolve("gemma-2b", sets=["memory.compile=off"]).config
    return plan.make_plan(config, shape, cards.by_name("rtx-4090"), Work(10_000_000, 1.0, 100))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that tests set: its one item is the time."""
    now = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A card whose one item is the peak since the last look."""
    peak = [0]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA GeForce RTX 4090")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 0))
    return peak


@pytest.mark.parametrize(("compiled", "counts"), [(False, 1), (True, 2)])
def test_one_step_calibrates(planned: Plan, clock: list[float], compiled: bool, counts: int) -> None:
    """The first step, or the second where the first one compiles, gives the time of the rest; no other step does."""
    found = Meter(replace(planned, compile=compiled), torch.device("cpu"), processes=1, total=100)
    said: list[tuple[str, float]] = []
    for number in range(1, 5):
        found.begin()
        clock[0] += 60 if number == 1 and compiled else 2
        if line := found.end(100 - number):
            said.append(line)
    left = 100 - counts
    assert [seconds for _, seconds in said] == [2 * left]
    assert said[0][0].startswith(f"A step takes 2.00 s (planned {(planned.seconds or 0) / 100:.2f} s): about 3 min for")


def test_nothing_left_to_estimate(planned: Plan, clock: list[float]) -> None:
    """A run of one step says nothing about the time that is left."""
    found = Meter(planned, torch.device("cpu"), processes=1, total=1)
    found.begin()
    assert found.end(0) is None


def test_speed_since_the_last_record(planned: Plan, clock: list[float], card: list[int]) -> None:
    """Tokens and time since the last record; what `restart` covers counts for neither."""
    found = Meter(planned, torch.device("cuda"), processes=1, total=100)
    found.restart(1000)
    clock[0] += 4
    card[0] = 3 * cards.GIB
    record = found.record(5000, steps=2, left=10)
    assert (record["seconds"], record["tokens_per_second"], record["seconds_left"]) == (4, 1000, 20)
    assert record["memory_gib"] == 3
    assert record["mfu"] == pytest.approx(1000 * planned.flops_per_token / 165e12)


def test_the_peak_is_the_runs(planned: Plan, card: list[int]) -> None:
    """The most of all records, although each begins anew; the plan's figure leaves the reserve out."""
    found = Meter(planned, torch.device("cuda"), processes=1, total=100)
    assert found.peak() is None, "a run that was over has measured nothing"
    found.begin()
    found.end(99)
    for peak in (5 * GB, 14 * GB, 2 * GB):
        card[0] = peak
        found.record(1, steps=1, left=1)
    assert found.peak() == 14 * GB
    assert found.planned == planned.total - plan.RESERVE
    line = found.compare(14 * GB)
    assert line == f"Memory: 13.04 GiB at most; {found.planned / cards.GIB:.2f} GiB planned for tensors."


def test_on_a_cpu_the_whole_process_counts(planned: Plan) -> None:
    """The peak is this process's resident memory, and the line says so."""
    found = Meter(planned, torch.device("cpu"), processes=1, total=100)
    found.begin()
    found.end(99)
    peak = found.peak()
    assert peak is not None
    assert peak > 100_000_000
    assert "the whole process with its libraries" in found.compare(peak)
