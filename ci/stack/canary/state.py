"""What must survive the controller's own crash: one small file, replaced whole.

The state names the step that is being carried out, not what was done: on resuming, the controller makes the world
agree with it again (every action is idempotent) and goes on.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ci.stack.canary.plan import Gate, Plan
from ci.stack.errors import StackError


class Status(StrEnum):
    """Where a release stands. The last three are final."""

    GATE = "gate"
    RUNNING = "running"
    PAUSED = "paused"
    PROMOTING = "promoting"
    ROLLING_BACK = "rolling_back"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"

    @property
    def final(self) -> bool:
        """Nothing moves any more."""
        return self in (Status.PROMOTED, Status.ROLLED_BACK, Status.ABORTED)


@dataclass(frozen=True)
class Event:
    """A line of the release's history."""

    at: float
    """Seconds since the epoch."""
    what: str


@dataclass(frozen=True)
class State:
    """One release."""

    variant: str
    image: str
    previous_image: str
    plan: Plan
    status: Status = Status.GATE
    step: int = 0
    step_started: float = 0.0
    looks_done: int = 0
    """Looks taken in this step."""
    reason: str = ""
    history: tuple[Event, ...] = field(default=())

    @property
    def percent(self) -> int:
        """Share of new sessions that belong to the canary now."""
        if self.status in (Status.RUNNING, Status.PAUSED):
            return self.plan.steps[self.step]
        return 100 if self.status is Status.PROMOTING else 0

    def noted(self, at: float, what: str, **changes: Any) -> State:
        """The state after an event."""
        return replace(self, history=(*self.history, Event(at, what)), **changes)


def path(folder: Path) -> Path:
    """The state file inside the stack's state folder."""
    return folder / "canary.json"


def save(folder: Path, state: State) -> None:
    """Write the state, whole and on disk, before anything acts on it."""
    target = path(folder)
    draft = target.with_suffix(".tmp")
    with draft.open("w") as out:
        json.dump(asdict(state), out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(target)


def load(folder: Path) -> State | None:
    """The last release, or None. Raises StackError for a file that is not ours or not whole."""
    target = path(folder)
    if not target.is_file():
        return None
    try:
        raw: dict[str, Any] = json.loads(target.read_text())
        plan = dict(raw.pop("plan"))
        plan["steps"] = tuple(plan["steps"])
        plan["gates"] = tuple(Gate(**gate) for gate in plan["gates"])
        events = tuple(Event(**event) for event in raw.pop("history"))
        status = Status(raw.pop("status"))
        return State(**raw, plan=Plan(**plan), status=status, history=events)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StackError(f"{target} is not a canary's state ({error}). Move it away to start another.") from error
