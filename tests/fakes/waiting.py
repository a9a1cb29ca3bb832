"""Waiting for something to become true, with a generous limit: tests assert outcomes, not speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def eventually(condition: Callable[[], object], what: str = "", seconds: float = 30.0) -> None:
    """Return once `condition()` is true; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"Not within {seconds:g} s: {what or condition}"
        await asyncio.sleep(0.01)
