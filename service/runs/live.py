"""A run as the process that works on it sees it, and what each reason to stop means."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.store.runs import Event
from service.telemetry.names import AbortCause, Outcome

RECENT_EVENTS = 256
"""Events of a live run kept in memory for its readers; older ones are read from the store."""

OUTCOMES: dict[str, Outcome] = {
    "cancelled": Outcome.CANCELLED,
    "replaced": Outcome.CANCELLED,
    "client_gone": Outcome.CLIENT_GONE,
    "shutdown": Outcome.INTERRUPTED,
}
CAUSES: dict[str, AbortCause] = {
    "cancelled": AbortCause.CANCELLED,
    "replaced": AbortCause.CANCELLED,
    "client_gone": AbortCause.CLIENT_GONE,
    "shutdown": AbortCause.SHUTDOWN,
    "released": AbortCause.SHUTDOWN,
}


@dataclass(slots=True)
class Live:
    """A run in this process. `changed` is set and replaced whenever events are stored."""

    recent: deque[Event] = field(default_factory=lambda: deque[Event](maxlen=RECENT_EVENTS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    survives: bool = False
    """It may go on in another process."""
    stop_reason: str | None = None
    armed: bool = False
    """Cancelling the task now ends the loop and nothing else."""
    lost: bool = False
    """It left this process without an ending: released, lease lost, or the store is down."""

    def publish(self, events: Sequence[Event]) -> None:
        """Show stored events to the readers."""
        self.recent.extend(events)
        self.wake()

    def wake(self) -> None:
        """Make the readers look again."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def stop(self, reason: str) -> None:
        """End the run for `reason`; the first one counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
        if self.armed and self.task is not None:
            self.armed = False
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class Created:
    """A run that was accepted. `replayed`: an earlier request with the same idempotency key made it."""

    run_id: str
    session_id: str
    replayed: bool = False
