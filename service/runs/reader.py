"""Following a run's events from any process: memory where the run is worked on here, the store everywhere else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from service.errors import NotFound
from service.runs.live import Live
from service.runs.runner import Runner
from service.store import Store
from service.store.runs import Event, RunRow

TERMINAL = "run.ended"


class Interrupted(Exception):
    """The stream has to end here while the run goes on elsewhere: reconnect with the last event's number."""


class Reader:
    """Reads event logs to their end."""

    def __init__(self, runner: Runner, store: Store, poll_seconds: float) -> None:
        self._runner = runner
        self._store = store
        self._poll = poll_seconds

    async def follow(self, run_id: str, after: int = 0) -> AsyncGenerator[list[Event]]:
        """The events after number `after`, in batches, until the terminal one. Raises Interrupted, NotFound."""
        while True:
            live = self._runner.live.get(run_id)
            # Taken before looking, so that what is stored after the look still wakes us.
            changed = live.changed if live is not None else None
            events = _recent(live, after) if live is not None else None
            if events is None:
                events = await self._store.runs.events(run_id, after)
            if events:
                after = events[-1].seq
                yield events
                if events[-1].type == TERMINAL:
                    return
                continue
            if live is None and await self._has_ended(run_id, after):
                return
            await self._wait(changed)

    async def result(self, run_id: str) -> RunRow:
        """The run once it has ended. Raises Interrupted, NotFound."""
        while True:
            live = self._runner.live.get(run_id)
            changed = live.changed if live is not None else None
            if live is None:
                row = await self._store.runs.get(run_id)
                if row is None:
                    raise NotFound("The run was deleted.", code="run_not_found")
                if row.ended:
                    return row
                if self._runner.stopping:
                    raise Interrupted
            await self._wait(changed)

    async def _has_ended(self, run_id: str, after: int) -> bool:
        """Whether there is nothing after event `after` and never will be."""
        row = await self._store.runs.get(run_id)
        if row is None:
            raise NotFound("The run was deleted.", code="run_not_found")
        if row.ended and after >= row.next_seq - 1:
            return True
        if self._runner.stopping and not row.ended:
            raise Interrupted
        return False

    async def _wait(self, changed: asyncio.Event | None) -> None:
        if changed is None:
            await asyncio.sleep(self._poll)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._poll, 5.0)):
                await changed.wait()


def _recent(live: Live, after: int) -> list[Event] | None:
    """The events after `after` if memory holds all of them, else None."""
    recent = live.recent
    if not recent or recent[0].seq > after + 1:
        return None
    return [event for event in recent if event.seq > after]
