"""How a command of ours is told to end other than by Ctrl-C: by a supervisor, or by a terminal that closed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]


def on_end(handler: Handler = signal.default_int_handler) -> None:
    """Let `handler` take these signals; by default they do what Ctrl-C does. Those that are ignored (nohup) stay so."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
