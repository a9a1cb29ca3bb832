"""Runs in the store. Whoever appends to a run must own its lease; losing it is `LeaseLost`, and nothing is written.

The number of an event is taken from the run's row in the same statement that checks the owner, so numbers have no
gaps and two processes can never write one run's log at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from service.store.database import Database
from service.store.records import Duplicate, Event, LeaseLost, NewRun, RunRow, SessionBusy, SessionUnknown
from service.store.sessions import Sessions
from service.store.tables import events, features, idempotency, runs, sessions

__all__ = [
    "Duplicate",
    "Event",
    "LeaseLost",
    "NewRun",
    "RunRow",
    "RunStore",
    "SessionBusy",
    "SessionUnknown",
]

_COLUMNS = [column for column in runs.c if column.name != "lease_until"]


class RunStore(Sessions):
    """Reads and writes runs, events and sessions."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._insert: Any = sqlite_insert if database.sqlite else postgresql_insert

    async def create(self, new: NewRun, *, since: float = 0.0) -> Duplicate | None:
        """Store a run with its first event, and take its session. `since` is when idempotency keys expire.

        Returns None, or the earlier run of the same idempotency key. Raises SessionBusy, SessionUnknown, StoreDown.
        """
        now = new.created_at

        async def operation(connection: AsyncConnection) -> Duplicate | None:
            if new.idempotency_key is not None:
                earlier = await self._earlier(connection, new, since)
                if earlier is not None:
                    return earlier
            await self._take_session(connection, new, now)
            await connection.execute(
                insert(runs).values(
                    id=new.id,
                    key_id=new.key_id,
                    session_id=new.session_id,
                    agent=new.agent,
                    model=new.model,
                    status="running",
                    request=new.request,
                    variant=new.variant,
                    created_at=now,
                    next_seq=2,
                    owner=new.owner,
                    lease_until=new.lease_until,
                    attempts=1,
                )
            )
            await connection.execute(
                insert(events).values(run_id=new.id, seq=1, type="run.created", data=new.created, at=now)
            )
            if new.idempotency_key is None:
                return None
            statement = self._insert(idempotency).values(
                key_id=new.key_id,
                idempotency_key=new.idempotency_key,
                fingerprint=new.fingerprint,
                run_id=new.id,
                created_at=now,
            )
            if (await connection.execute(statement.on_conflict_do_nothing())).rowcount == 1:
                return None
            # Another process was faster (PostgreSQL only): undo ours and answer with its run.
            await connection.execute(delete(runs).where(runs.c.id == new.id))
            await self._leave_session(connection, new.session_id, new.id)
            return await self._earlier(connection, new, since)

        return await self._database.write(operation)

    async def _earlier(self, connection: AsyncConnection, new: NewRun, since: float) -> Duplicate | None:
        mine = (idempotency.c.key_id == new.key_id) & (idempotency.c.idempotency_key == new.idempotency_key)
        await connection.execute(delete(idempotency).where(mine, idempotency.c.created_at < since))
        row = (await connection.execute(select(idempotency).where(mine))).one_or_none()
        return None if row is None else Duplicate(row.run_id, row.fingerprint)

    async def append(self, run_id: str, owner: str, entries: Sequence[tuple[str, dict[str, Any]]]) -> list[Event]:
        """Add events to a run's log and return them with their numbers. Raises LeaseLost, StoreDown."""
        now = time.time()

        async def operation(connection: AsyncConnection) -> list[Event]:
            first = await self._take_numbers(connection, run_id, owner, len(entries))
            return await self._insert_events(connection, run_id, first, entries, now)

        return await self._database.write(operation)

    async def finish(
        self,
        run: RunRow,
        owner: str,
        outcome: str,
        summary: dict[str, Any],
        entries: Sequence[tuple[str, dict[str, Any]]],
        feature_row: dict[str, Any],
    ) -> list[Event]:
        """Put a run into its terminal state with its last events, free its session, store its feature row."""
        now = time.time()

        async def operation(connection: AsyncConnection) -> list[Event]:
            first = await self._take_numbers(
                connection,
                run.id,
                owner,
                len(entries),
                {
                    "status": "ended",
                    "outcome": outcome,
                    "summary": summary,
                    "ended_at": now,
                    "owner": None,
                },
            )
            written = await self._insert_events(connection, run.id, first, entries, now)
            await self._leave_session(connection, run.session_id, run.id)
            await connection.execute(
                self._insert(features).values(run_id=run.id, at=now, **feature_row).on_conflict_do_nothing()
            )
            return written

        return await self._database.write(operation)

    async def _take_numbers(
        self,
        connection: AsyncConnection,
        run_id: str,
        owner: str,
        count: int,
        values: dict[str, Any] | None = None,
    ) -> int:
        row = (
            await connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.owner == owner, runs.c.status == "running")
                .values(next_seq=runs.c.next_seq + count, **(values or {}))
                .returning(runs.c.next_seq)
            )
        ).one_or_none()
        if row is None:
            raise LeaseLost(run_id)
        return int(row.next_seq) - count

    async def _insert_events(
        self,
        connection: AsyncConnection,
        run_id: str,
        first: int,
        entries: Sequence[tuple[str, dict[str, Any]]],
        now: float,
    ) -> list[Event]:
        written = [Event(first + index, kind, data, now) for index, (kind, data) in enumerate(entries)]
        await connection.execute(
            insert(events),
            [{"run_id": run_id, "seq": each.seq, "type": each.type, "data": each.data, "at": now} for each in written],
        )
        return written

    async def get(self, run_id: str, key_id: str | None = None) -> RunRow | None:
        """A run, if it is there and (unless `key_id` is None) belongs to that key."""
        query = select(*_COLUMNS).where(runs.c.id == run_id)
        if key_id is not None:
            query = query.where(runs.c.key_id == key_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else RunRow(**row._mapping)

    async def claim(self, run_id: str, owner: str, until: float) -> RunRow | None:
        """Take over a run whose lease has run out; None if somebody else was faster or it has ended."""
        return await self.get(run_id) if await self.take(run_id, owner, until) else None

    async def page(
        self,
        key_id: str | None,
        *,
        limit: int,
        before: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
    ) -> list[RunRow]:
        """Runs, newest first; `before` is the id after which the page starts."""
        query = select(*_COLUMNS).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
        if key_id is not None:
            query = query.where(runs.c.key_id == key_id)
        if session_id is not None:
            query = query.where(runs.c.session_id == session_id)
        if status is not None:
            query = query.where(runs.c.status == status)
        if before is not None:
            mark = select(runs.c.created_at, runs.c.id).where(runs.c.id == before).subquery()
            query = query.where(
                tuple_(runs.c.created_at, runs.c.id) < select(mark.c.created_at, mark.c.id).scalar_subquery()
            )
        async with self._database.read() as connection:
            return [RunRow(**row._mapping) for row in await connection.execute(query)]

    async def events(self, run_id: str, after: int = 0, limit: int = 500) -> list[Event]:
        """The log after event number `after`, oldest first."""
        query = (
            select(events.c.seq, events.c.type, events.c.data, events.c.at)
            .where(events.c.run_id == run_id, events.c.seq > after)
            .order_by(events.c.seq)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [Event(row.seq, row.type, row.data, row.at) for row in await connection.execute(query)]

    async def give_feedback(self, run_id: str, feedback: dict[str, Any], thumbs: int) -> None:
        """Store what a person thought of a run."""

        async def operation(connection: AsyncConnection) -> None:
            await connection.execute(update(runs).where(runs.c.id == run_id).values(feedback=feedback))
            await connection.execute(update(features).where(features.c.run_id == run_id).values(thumbs=thumbs))

        await self._database.write(operation)

    async def delete_run(self, run_id: str) -> None:
        """Delete an ended run with its events."""

        async def operation(connection: AsyncConnection) -> None:
            await connection.execute(delete(runs).where(runs.c.id == run_id, runs.c.status == "ended"))

        await self._database.write(operation)

    async def purge(self, before: float, keys_before: float) -> int:
        """Delete runs that ended before `before`, their empty sessions, and idempotency keys; returns the runs."""

        async def operation(connection: AsyncConnection) -> int:
            gone = await connection.execute(delete(runs).where(runs.c.ended_at < before))
            await connection.execute(
                delete(sessions).where(
                    sessions.c.updated_at < before,
                    sessions.c.active_run.is_(None),
                    ~select(runs.c.id).where(runs.c.session_id == sessions.c.id).exists(),
                )
            )
            await connection.execute(delete(idempotency).where(idempotency.c.created_at < keys_before))
            return gone.rowcount

        return await self._database.write(operation)
