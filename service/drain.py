"""Draining: what SIGTERM starts. New work is refused at once, live work has `drain_seconds` to end.

The server's own handler (uvicorn's) stays in place behind ours: it closes the listening socket and waits for the
open connections; we end them in time by ending their runs.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Drain:
    """A flag that the whole process can see, and wait for."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.over = asyncio.Event()
        """Set when the time for live work is up."""

    @property
    def started(self) -> bool:
        """True once the process is to end."""
        return self._event.is_set()

    def begin(self) -> None:
        """Start to drain; repeating it changes nothing."""
        self._event.set()

    def finish(self) -> None:
        """The time is up: whatever still streams has to end."""
        self._event.set()
        self.over.set()

    async def wait(self) -> None:
        """Return once draining has begun."""
        await self._event.wait()

    def on_signals(self) -> Callable[[], None]:
        """Begin on SIGTERM and SIGINT, then let the former handler act. Returns a function that undoes it.

        Only the main thread may set handlers; elsewhere (an application inside a test) nothing is installed.
        """
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        loop = asyncio.get_running_loop()
        former: dict[int, Any] = {}

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.begin)
            earlier = former[number]
            if callable(earlier):
                earlier(number, frame)

        for number in (signal.SIGTERM, signal.SIGINT):
            earlier = signal.getsignal(number)
            if callable(earlier) and earlier is not signal.default_int_handler:
                former[number] = earlier
                signal.signal(number, handle)

        def undo() -> None:
            for number, earlier in former.items():
                if signal.getsignal(number) is handle:
                    signal.signal(number, earlier)

        return undo
