"""Writing a run's log: events in order, deltas merged while a write is under way, nothing shown before it is stored.

A delta waits at most `DELTA_SECONDS` for company (the first of a step not at all). What does not fit one commit goes
with the next, so a busy store makes larger events, never a longer queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from service.store.runs import Event

DELTA_SECONDS = 0.025

Entry = tuple[str, dict[str, Any]]


class Appender(Protocol):
    """Stores entries and returns them numbered; `RunStore.append` for one run and owner."""

    async def __call__(self, entries: Sequence[Entry], /) -> list[Event]: ...


class RunLog:
    """One run's writer. A failed write (lease lost, store down) is raised by the next `flush`."""

    def __init__(self, append: Appender, publish: Callable[[Sequence[Event]], None]) -> None:
        self._append = append
        self._publish = publish
        self._pending: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._warm = False

    def add(self, kind: str, data: dict[str, Any]) -> None:
        """Add an event; it is written with the next flush."""
        self._pending.append((kind, data))

    def delta(self, kind: str, step: int, text: str) -> None:
        """Add text to the step's stream; it is written soon."""
        last = self._pending[-1] if self._pending else None
        if last is not None and last[0] == kind and last[1]["step"] == step:
            last[1]["text"] += text
        else:
            self._pending.append((kind, {"step": step, "text": text}))
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(
                DELTA_SECONDS if self._warm else 0.0, self._start_writing
            )
            self._warm = True

    def cool(self) -> None:
        """The next delta is a step's first: write it at once."""
        self._warm = False

    async def flush(self) -> None:
        """Return once everything added is stored. Raises LeaseLost, StoreDown."""
        while self._writing is not None or self._pending:
            if self._failure is not None:
                break
            if self._writing is None:
                self._start_writing()
            assert self._writing is not None
            await asyncio.shield(self._writing)
        if self._failure is not None:
            raise self._failure

    def take_pending(self) -> list[Entry]:
        """What is not written yet, to be written with the run's ending; call after the loop has stopped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, []
        return pending

    async def settle(self) -> None:
        """Wait for a write under way, whatever its result."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def _start_writing(self) -> None:
        self._timer = None
        if self._writing is None and self._pending and self._failure is None:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        entries, self._pending = self._pending, []
        try:
            written = await self._append(entries)
        except Exception as error:
            self._failure = error
        else:
            self._publish(written)
        finally:
            self._writing = None
            if self._pending and self._failure is None and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(DELTA_SECONDS, self._start_writing)
