"""Who works on a run: leases that run out, and the flag that asks for a run's end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.store.database import Database
from service.store.tables import runs


class Leases:
    """The part of the run store that says which process has which run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def renew(self, owner: str, run_ids: Sequence[str], until: float) -> None:
        """Keep what `owner` works on until `until`; a run that it has lost sight of is left to run out."""

        async def operation(connection: AsyncConnection) -> None:
            for start in range(0, len(run_ids), 500):
                mine = runs.c.id.in_(run_ids[start : start + 500])
                await connection.execute(
                    update(runs)
                    .where(mine, runs.c.owner == owner, runs.c.status == "running")
                    .values(lease_until=until)
                )

        await self._database.write(operation)

    async def take(self, run_id: str, owner: str, until: float) -> bool:
        """Take over a run whose lease has run out; False if somebody else was faster or it has ended."""
        now = time.time()

        async def operation(connection: AsyncConnection) -> bool:
            result = await connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.status == "running", runs.c.lease_until < now)
                .values(owner=owner, lease_until=until, attempts=runs.c.attempts + 1)
            )
            return result.rowcount == 1

        return await self._database.write(operation)

    async def release(self, run_id: str, owner: str) -> None:
        """Give a run up, so that any process may claim it at once."""

        async def operation(connection: AsyncConnection) -> None:
            await connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.owner == owner, runs.c.status == "running")
                .values(owner=None, lease_until=0.0)
            )

        await self._database.write(operation)

    async def orphans(self, limit: int = 100) -> list[str]:
        """Ids of runs that nobody works on."""
        query = (
            select(runs.c.id)
            .where(runs.c.status == "running", runs.c.lease_until < time.time())
            .order_by(runs.c.created_at)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def ask_to_stop(self, run_id: str, reason: str) -> None:
        """Raise the cancel flag of a run that has not ended; the first reason stays."""

        async def operation(connection: AsyncConnection) -> None:
            await connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.status == "running", runs.c.cancel.is_(None))
                .values(cancel=reason)
            )

        await self._database.write(operation)

    async def asked_to_stop(self, owner: str) -> dict[str, str]:
        """The reason by run id, of the runs of `owner` whose cancel flag is raised."""
        query = select(runs.c.id, runs.c.cancel).where(
            runs.c.owner == owner, runs.c.status == "running", runs.c.cancel.is_not(None)
        )
        async with self._database.read() as connection:
            return {row.id: row.cancel for row in await connection.execute(query)}
