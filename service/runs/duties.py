"""What a process does for its runs in the background: renew leases, hear cancel flags, adopt orphans, delete the old.

Each is a loop for ever; a store that is down for a while ends none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from service.runs.live import Live
from service.store import StoreDown
from service.store.runs import RunStore

log = structlog.get_logger("service.runs")

IDEMPOTENCY_SECONDS = 24 * 3600.0
"""How long an Idempotency-Key means the same run."""


async def keep_leases(store: RunStore, owner: str, live: Mapping[str, Live], seconds: float) -> None:
    """Renew the leases of what `owner` works on, three times in their `seconds`."""
    while True:
        await asyncio.sleep(seconds / 3)
        if live:
            with contextlib.suppress(StoreDown):
                await store.renew(owner, list(live), time.time() + seconds)


async def watch_flags(store: RunStore, owner: str, live: Mapping[str, Live], every: float) -> None:
    """Stop the runs whose cancel flag was raised, perhaps by another process; look `every` so many seconds."""
    while True:
        await asyncio.sleep(every)
        if not live:
            continue
        with contextlib.suppress(StoreDown):
            for run_id, reason in (await store.asked_to_stop(owner)).items():
                if run_id in live:
                    live[run_id].stop(reason)


async def adopt(take_over: Callable[[], Awaitable[int]], every: float) -> None:
    """Take over what nobody works on, now and `every` so many seconds."""
    while True:
        with contextlib.suppress(StoreDown):
            await take_over()
        await asyncio.sleep(every)


async def clean(store: RunStore, retention_days: float) -> None:
    """Delete what is older than the retention, now and every hour."""
    while True:
        now = time.time()
        with contextlib.suppress(StoreDown):
            gone = await store.purge(now - retention_days * 86400, now - IDEMPOTENCY_SECONDS)
            if gone:
                log.info("runs.purged", count=gone)
        await asyncio.sleep(3600)
