"""The run store: runs with their event logs, sessions, idempotency records, API keys, feature rows.

`Store.open(url)` connects and migrates; `runs` and `keys` hold the operations. SQLite (WAL) or PostgreSQL.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from service.store.database import Database, Refused, StoreDown
from service.store.keys import KeyStore
from service.store.runs import RunStore

__all__ = ["Database", "Refused", "Store", "StoreDown"]


@dataclass(frozen=True, slots=True)
class Store:
    """All stores of a process, on one database."""

    database: Database
    runs: RunStore
    keys: KeyStore

    @classmethod
    async def open(cls, url: str) -> Store:
        """Connect to `url` (SQLAlchemy's form) and bring the tables up to date. Raises StartupError."""
        database = await Database.open(url)
        return cls(database, RunStore(database), KeyStore(database))

    async def ping(self) -> None:
        """Read once; raises StoreDown."""
        async with self.database.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def aclose(self) -> None:
        """Write what waits and disconnect."""
        await self.database.aclose()
