"""API keys in the store: only the hash of the secret part is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.store.database import Database
from service.store.tables import api_keys


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as stored. `limits` holds those of rpm, tpm and concurrency that differ from the settings."""

    id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    limits: dict[str, int] = field(default_factory=dict[str, int])
    created_at: float = 0.0
    revoked_at: float | None = None


class KeyStore:
    """Reads and writes API keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: KeyRecord) -> None:
        """Store a new key."""
        values: dict[str, Any] = {
            "id": key.id,
            "name": key.name,
            "hash": key.hash,
            "scopes": list(key.scopes),
            "limits": key.limits,
            "created_at": key.created_at,
        }

        async def operation(connection: AsyncConnection) -> None:
            await connection.execute(insert(api_keys).values(values))

        await self._database.write(operation)

    async def get(self, key_id: str) -> KeyRecord | None:
        """The key of that id, revoked or not."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).one_or_none()
        return None if row is None else _record(row)

    async def all(self) -> list[KeyRecord]:
        """Every key, oldest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(api_keys).order_by(api_keys.c.created_at))).all()
        return [_record(row) for row in rows]

    async def any_active(self) -> bool:
        """Whether there is a key that is not revoked."""
        query = select(api_keys.c.id).where(api_keys.c.revoked_at.is_(None)).limit(1)
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key; False if there is no such active key."""

        async def operation(connection: AsyncConnection) -> bool:
            result = await connection.execute(
                update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=time.time())
            )
            return result.rowcount == 1

        return await self._database.write(operation)


def _record(row: Any) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        name=row.name,
        hash=row.hash,
        scopes=tuple(row.scopes),
        limits=dict(row.limits),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
