"""Taking a run in: what is stored of it, whose turn it is in its session, and requests that were made before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.auth import Principal
from service.backends.base import Message
from service.errors import Conflict, NotFound
from service.runs.duties import IDEMPOTENCY_SECONDS
from service.runs.live import Created
from service.runs.spec import RunSpec, message_to_json, new_id, new_session_id, to_json
from service.settings import Settings
from service.store.runs import Duplicate, NewRun, RunStore, SessionBusy, SessionUnknown

INTERRUPT_SECONDS = 15.0
"""How long a run waits for the one that it replaces."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What new runs of this process have in common. `stop` asks for the end of a run: `stop(run_id, reason)`."""

    store: RunStore
    settings: Settings
    variant: Mapping[str, Any]
    owner: str
    stop: Callable[[str, str], Awaitable[None]]

    def new(
        self, spec: RunSpec, principal: Principal, session_id: str | None, previous: Sequence[Message] | None
    ) -> NewRun:
        """The run to be stored; `previous` is the conversation before it where the caller brings that along."""
        request = to_json(spec)
        if previous:
            request["previous"] = [message_to_json(each) for each in previous]
        now = time.time()
        session = session_id or new_session_id(self.settings.variant)
        created: dict[str, Any] = {
            "agent": spec.agent,
            "model": spec.model,
            "session_id": session,
            "variant": self.variant["name"],
            "background": spec.background,
            "on_disconnect": spec.on_disconnect,
            "limits": request.get("limits", {}),
        }
        return NewRun(
            id=new_id("run"),
            key_id=principal.key_id,
            session_id=session,
            new_session=session_id is None,
            agent=spec.agent,
            model=spec.model,
            request=request,
            variant=dict(self.variant),
            owner=self.owner,
            lease_until=now + self.settings.lease_seconds,
            created_at=now,
            created=created,
        )

    async def stored(self, new: NewRun, replace_active: bool) -> Duplicate | None:
        """Store it; the earlier run of its idempotency key, if there is one. Raises Conflict, NotFound, StoreDown."""
        deadline = time.monotonic() + INTERRUPT_SECONDS
        while True:
            try:
                return await self.store.create(new, since=time.time() - IDEMPOTENCY_SECONDS)
            except SessionUnknown:
                raise NotFound(
                    f"No such session: {new.session_id[:100]}. Leave session_id out to begin one.",
                    code="session_not_found",
                    param="session_id",
                ) from None
            except SessionBusy as busy:
                if not replace_active or time.monotonic() > deadline:
                    raise Conflict(
                        f"The session has an active run: {busy.run_id}. Wait for its end, cancel it, or send "
                        "on_active_run=interrupt.",
                        code="session_busy",
                        param="session_id",
                    ) from None
                await self.stop(busy.run_id, "replaced")
                await asyncio.sleep(0.02)

    async def replayed(self, earlier: Duplicate, fingerprint: str) -> Created:
        """The answer to a repeated request. Raises Conflict if its body is another, NotFound if the run was deleted."""
        if earlier.fingerprint != fingerprint:
            raise Conflict(
                "The Idempotency-Key was used before with another body. Use a new key for a new request.",
                code="idempotency_conflict",
            )
        row = await self.store.get(earlier.run_id)
        if row is None:
            raise NotFound("The run of this Idempotency-Key was deleted. Use a new key.", code="run_not_found")
        return Created(row.id, row.session_id, replayed=True)
