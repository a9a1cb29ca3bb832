"""A training run seen from outside: the newest run folder as a few numbers.

Reads what the trainer writes, by these names only, and imports nothing of it:

    RUN/metrics.jsonl             lines with "step", "time" (seconds since 1970), "loss", "tokens_per_second"
    RUN/status.json               "state" (starting, running, ...) and "updated" (seconds since 1970)
    RUN/checkpoints/step-*/       complete ones have a manifest.json
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SILENT = 120.0
"""Seconds after which a run that says it is running, but writes nothing, is no longer believed."""
TAIL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest run; None where it has not said so yet."""

    run: str
    running: bool
    step: int | None = None
    loss: float | None = None
    step_seconds: float | None = None
    tokens_per_second: float | None = None
    checkpoint_time: float | None = None


def newest(folder: Path, now: float) -> Progress | None:
    """The progress of the run in `folder` whose metrics changed last; None where there is no run."""
    found = [(_changed(run), run) for run in _runs(folder)]
    if not found:
        return None
    changed, run = max(found, key=lambda pair: pair[0])
    steps = [line for line in _last_lines(run / "metrics.jsonl") if "loss" in line and "step" in line]
    last = steps[-1] if steps else {}
    return Progress(
        run=run.name,
        running=_running(run, changed, now),
        step=int(last["step"]) if last else None,
        loss=float(last["loss"]) if last else None,
        step_seconds=_step_seconds(steps),
        tokens_per_second=last.get("tokens_per_second"),
        checkpoint_time=_checkpoint_time(run / "checkpoints"),
    )


def _runs(folder: Path) -> list[Path]:
    try:
        return [
            path for path in folder.iterdir() if (path / "status.json").exists() or (path / "metrics.jsonl").exists()
        ]
    except OSError:
        return []


def _changed(run: Path) -> float:
    times = [0.0]
    for name in ("metrics.jsonl", "status.json"):
        try:
            times.append((run / name).stat().st_mtime)
        except OSError:
            continue
    return max(times)


def _running(run: Path, changed: float, now: float) -> bool:
    try:
        status: dict[str, Any] = json.loads((run / "status.json").read_text())
    except (OSError, ValueError):
        return now - changed < SILENT
    # A long step writes nothing for a while; status and metrics together are the sign of life.
    return status.get("state") in ("starting", "running") and now - max(changed, status.get("updated", 0)) < SILENT


def _last_lines(path: Path) -> list[dict[str, Any]]:
    """The whole JSON lines at the end of a file; a line cut off at either end is left out."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            lines.append(record)
    return lines


def _step_seconds(steps: list[dict[str, Any]]) -> float | None:
    if len(steps) < 2:
        return None
    before, last = steps[-2:]
    done = last["step"] - before["step"]
    return (last["time"] - before["time"]) / done if done > 0 and "time" in last and "time" in before else None


def _checkpoint_time(folder: Path) -> float | None:
    times: list[float] = []
    for manifest in folder.glob("step-*/manifest.json"):
        try:
            times.append(manifest.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)
