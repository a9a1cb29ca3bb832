"""What a run says in words: to the person, to `RUN/train.log` (one JSON object a line), and last to its status."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from . import status


def say(run: Path, message: str) -> None:
    """Tell the person and the run's log."""
    print(message, file=sys.stderr, flush=True)
    with (run / "train.log").open("a") as file:
        file.write(json.dumps({"time": round(time.time(), 3), "event": message}) + "\n")


def record_failure(run: Path, error: BaseException, *, stopped: bool) -> None:
    """Leave the reason in the run's status and log."""
    before = status.read(run) or status.Status("starting")
    message = str(error) or type(error).__name__
    status.write(run, replace(before, state="stopped" if stopped else "failed", message=message))
