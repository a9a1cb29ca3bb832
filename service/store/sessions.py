"""Sessions: who has one, which run is at work in it, and what was said there."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.store.leases import Leases
from service.store.records import NewRun, SessionBusy, SessionUnknown
from service.store.tables import runs, sessions


class Sessions(Leases):
    """The part of the run store that is about sessions."""

    async def _take_session(self, connection: AsyncConnection, new: NewRun, now: float) -> None:
        if new.new_session:
            await connection.execute(
                insert(sessions).values(
                    id=new.session_id,
                    key_id=new.key_id,
                    variant=new.variant.get("name", ""),
                    created_at=now,
                    updated_at=now,
                    active_run=new.id,
                )
            )
            return
        mine = (sessions.c.id == new.session_id) & (sessions.c.key_id == new.key_id)
        taken = await connection.execute(
            update(sessions).where(mine, sessions.c.active_run.is_(None)).values(active_run=new.id, updated_at=now)
        )
        if taken.rowcount == 1:
            return
        row = (await connection.execute(select(sessions.c.active_run).where(mine))).one_or_none()
        if row is None:
            raise SessionUnknown(new.session_id)
        raise SessionBusy(row.active_run)

    async def _leave_session(self, connection: AsyncConnection, session_id: str, run_id: str) -> None:
        await connection.execute(
            update(sessions)
            .where(sessions.c.id == session_id, sessions.c.active_run == run_id)
            .values(active_run=None, updated_at=time.time())
        )

    async def add_session(self, session_id: str, key_id: str, variant: str) -> None:
        """Store an empty session."""
        now = time.time()

        async def operation(connection: AsyncConnection) -> None:
            await connection.execute(
                insert(sessions).values(id=session_id, key_id=key_id, variant=variant, created_at=now, updated_at=now)
            )

        await self._database.write(operation)

    async def history(self, session_id: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """`(request, summary)` of a session's ended runs, oldest first."""
        query = (
            select(runs.c.request, runs.c.summary)
            .where(runs.c.session_id == session_id, runs.c.status == "ended")
            .order_by(runs.c.created_at, runs.c.id)
        )
        async with self._database.read() as connection:
            return [(row.request, row.summary) for row in await connection.execute(query)]

    async def delete_session(self, session_id: str, key_id: str | None) -> bool:
        """Delete a session with everything of its runs; False if there is none. Raises SessionBusy."""

        async def operation(connection: AsyncConnection) -> bool:
            mine = sessions.c.id == session_id
            if key_id is not None:
                mine &= sessions.c.key_id == key_id
            row = (await connection.execute(select(sessions.c.active_run).where(mine))).one_or_none()
            if row is None:
                return False
            if row.active_run is not None:
                raise SessionBusy(row.active_run)
            await connection.execute(delete(runs).where(runs.c.session_id == session_id))
            await connection.execute(delete(sessions).where(mine))
            return True

        return await self._database.write(operation)
