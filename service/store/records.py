"""What the run store takes and gives, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.store.database import Refused


class LeaseLost(Refused):
    """Another process has the run now, or it has ended."""


class SessionBusy(Refused):
    """Another run of the session is active: `run_id`."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class SessionUnknown(Refused):
    """No such session of this key."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a run's log; `seq` counts from 1."""

    seq: int
    type: str
    data: dict[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as stored."""

    id: str
    key_id: str
    session_id: str
    agent: str
    model: str
    status: str
    outcome: str | None
    request: dict[str, Any]
    variant: dict[str, Any]
    summary: dict[str, Any] | None
    feedback: dict[str, Any] | None
    created_at: float
    ended_at: float | None
    next_seq: int
    owner: str | None
    attempts: int
    cancel: str | None

    @property
    def ended(self) -> bool:
        """Whether it is in its terminal state."""
        return self.status == "ended"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be created. `session_id` names an existing session unless `new_session`."""

    id: str
    key_id: str
    session_id: str
    new_session: bool
    agent: str
    model: str
    request: dict[str, Any]
    variant: dict[str, Any]
    owner: str
    lease_until: float
    created_at: float
    created: dict[str, Any]
    """Data of the first event, `run.created`."""
    idempotency_key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The idempotency key was used before: for this run, with a body of this fingerprint."""

    run_id: str
    fingerprint: str
