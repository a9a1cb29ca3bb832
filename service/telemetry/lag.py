"""How late the event loop wakes up: the sign that something blocks it or that one core is not enough."""

from __future__ import annotations

import time

import anyio

from service.telemetry import names
from service.telemetry.metrics import Metrics


async def watch(metrics: Metrics, *, every: float = 1.0) -> None:
    """Measure for ever, once in `every` seconds; cancel it to stop."""
    while True:
        due = time.monotonic() + every
        await anyio.sleep(every)
        metrics.set(names.LOOP_LAG, max(0.0, time.monotonic() - due))
