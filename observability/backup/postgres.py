"""A run store in PostgreSQL: dumped by pg_dump (custom format), put back by pg_restore into an empty schema.

    database/runs.pgdump        the dump's path in a snapshot

A dump is read to its end before it counts. A restore renames the schema that is in the way to `before_restore_TIME`,
restores in one transaction, and compares the tables with the dump's; when any of that fails the old schema takes its
name again. The programs must not be older than the server: pg_dump refuses that by itself.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from observability.backup.errors import DatabaseUnusable

ENTRY = "database/runs.pgdump"
SCHEMA = "public"
DIALECTS = ("postgresql", "postgres", "postgresql+asyncpg")
PARAMETERS = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "application_name")
"""Of libpq's, those that an address of a run store may carry; others are its driver's own."""

T = TypeVar("T")


@dataclass(frozen=True)
class Database:
    """A PostgreSQL database: its address without the password, as libpq takes it, and the password."""

    address: str
    password: str = ""

    def program(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs. Raises DatabaseUnusable with its last line."""
        command = [str(found(name)), *words]
        environment = {**os.environ, "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "10", "LC_ALL": "C"}
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
            raise DatabaseUnusable(f"{name} failed ({said[0].strip()}), {self.address}. Check address and password.")
        return done

    def ask(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run `work` on a connection. Raises DatabaseUnusable."""
        try:
            import asyncpg
        except ImportError as error:
            raise DatabaseUnusable("Restoring a database needs a package. Install asyncpg.") from error

        async def connected() -> T:
            connection = await asyncpg.connect(self.address, password=self.password or None, timeout=10)
            try:
                return await work(connection)
            finally:
                await connection.close()

        try:
            return asyncio.run(connected())
        except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DatabaseUnusable(f"Database refuses ({error}), {self.address}. Check the address.") from error


def database(url: str | None) -> Database | None:
    """The database that a run store's address means; None for SQLite, which is a file of the data folder."""
    parts = urlsplit((url or "").strip())
    if parts.scheme not in DIALECTS:
        return None
    given = dict(parse_qsl(parts.query))
    if "ssl" in given:  # asyncpg's word
        given.setdefault("sslmode", given["ssl"])
    query = urlencode({name: value for name, value in given.items() if name in PARAMETERS})
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    netloc = f"{name}@{host}" if name else host
    return Database(f"postgresql://{netloc}{parts.path}{'?' if query else ''}{query}", unquote(password))


def found(name: str) -> Path:
    """The newest installed program of that name. Raises DatabaseUnusable where there is none."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
        key=lambda path: int(re.sub(r"\D", "", path.parent.parent.name) or 0),
    )
    onpath = shutil.which(name)
    if installed:
        return installed[-1]
    if onpath is None:
        raise DatabaseUnusable(f"No program {name} here, for a run store in PostgreSQL. Install postgresql-client.")
    return Path(onpath)


def dump(source: Database, target: Path) -> None:
    """Write the run store's dump to a file and read it again. Raises DatabaseUnusable."""
    words = ("--format=custom", "--no-owner", "--no-privileges", f"--schema={SCHEMA}", f"--file={target}")
    source.program("pg_dump", *words, f"--dbname={source.address}")
    source.program("pg_restore", "--file=/dev/null", str(target))


def restore(target: Database, content: Path, *, now: datetime) -> str:
    """Put a dump back; returns the schema that holds what was there before, or nothing. Raises DatabaseUnusable."""
    aside = f"before_restore_{now.astimezone(UTC):%Y%m%dt%H%M%Sz}"
    listed = target.program("pg_restore", "--list", str(content)).stdout
    wanted = set(re.findall(rf"^\d+; \d+ \d+ TABLE {SCHEMA} (\S+) ", listed, re.MULTILINE))
    moved = target.ask(lambda connection: _clear(connection, aside))
    try:
        options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", f"--schema={SCHEMA}")
        target.program("pg_restore", *options, f"--dbname={target.address}", str(content))
        there = target.ask(_tables)
        if there != wanted:
            differ = ", ".join(sorted(there ^ wanted))
            raise DatabaseUnusable(f"Tables differ from the dump's ({differ}), {target.address}. Use another backup.")
    except DatabaseUnusable:
        if moved:
            target.ask(lambda connection: _back(connection, aside))
        raise
    return aside if moved else ""


async def _tables(connection: Any) -> set[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
    return {str(row["tablename"]) for row in rows}


async def _clear(connection: Any, aside: str) -> bool:
    """Make the schema empty; returns whether something was there and now is in `aside`."""
    there = bool(await _tables(connection))
    async with connection.transaction():
        if there:
            await connection.execute(f"ALTER SCHEMA {SCHEMA} RENAME TO {aside}")
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    return there


async def _back(connection: Any, aside: str) -> None:
    async with connection.transaction():
        await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        await connection.execute(f"ALTER SCHEMA {aside} RENAME TO {SCHEMA}")
