"""The wish to stop, by a signal or by `train-stop`, which the loop reads between steps."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import status


class Stop:
    """Whether and by whom the run was asked to save and end."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self.signal = ""

    @property
    def name(self) -> str:
        """SIGTERM, SIGINT, train-stop, or nothing."""
        return self.signal or ("train-stop" if status.asked_to_stop(self._run) else "")


@contextmanager
def wish_to_stop(run: Path) -> Generator[Stop]:
    """Note SIGTERM and SIGINT instead of dying; a second one acts as usual."""
    stop = Stop(run)

    def note(number: int, _frame: object) -> None:
        stop.signal = signal.Signals(number).name
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
