"""How a command of ours is told to end other than by Ctrl-C: by a supervisor, or by a terminal that closed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def on_end(handler: Handler = signal.default_int_handler) -> Generator[None]:
    """Let `handler` take these signals inside; by default they do what Ctrl-C does. Those ignored (nohup) stay so."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = {number: handler for number, was in before.items() if was != signal.SIG_IGN}
    for number, handles in taken.items():
        signal.signal(number, handles)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
