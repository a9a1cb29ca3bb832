"""The connection to SQLite or PostgreSQL: opening, migrating, reading, and one writer that commits in groups.

Every write of a process goes through `Database.write`: a single task takes all operations that wait, runs them in
one transaction and commits once. While a commit runs, the next group gathers, so throughput grows with load and an
idle process still commits each write at once. SQLite then has one writer a process, which is all it can use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.errors import StartupError, Unavailable

HEAD = "0001"
"""The newest migration; a test compares it with the files."""

T = TypeVar("T")
Operation = Callable[[AsyncConnection], Awaitable[T]]


class Refused(Exception):
    """Raised by an operation that found it must not write, and has written nothing."""


class StoreDown(Unavailable):
    """The store does not take the write (disk full, read-only, no connection)."""

    code = "store_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The run store does not work now: {reason}. Try again later.", retry_after=5.0)


class Database:
    """One engine, one writer. Reads run beside it on connections of their own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.sqlite = engine.dialect.name == "sqlite"
        self._waiting: list[tuple[Operation[Any], asyncio.Future[Any]]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._writer = asyncio.create_task(self._write_groups(), name="store-writer")

    @classmethod
    async def open(cls, url: str) -> Database:
        """Connect and bring the tables up to date. Raises StartupError."""
        engine = _engine(url)
        where = make_url(url).render_as_string(hide_password=True)
        try:
            await _migrate(engine)
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            raise StartupError(
                f"Cannot open the run store: {where}: {reason_of(error)}.",
                "Check AGENT_LOOP_DATABASE_URL or AGENT_LOOP_DATA_DIR and that the place is writable.",
            ) from None
        return cls(engine)

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """A connection for reading: every statement sees what is committed by then."""
        try:
            async with self.engine.connect() as connection:
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")
        except (DBAPIError, OSError) as error:
            raise StoreDown(reason_of(error)) from error

    async def write(self, operation: Operation[T]) -> T:
        """Run `operation` in a transaction and return its result once committed.

        Raises what the operation raises as `Refused`, and `StoreDown` when nothing could be written. The operation
        may run again after a deadlock or a serialisation failure, so it must only talk to the connection.
        """
        if self._closing:
            raise StoreDown("closing")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        self._wake.set()
        return await future

    async def aclose(self) -> None:
        """Write what waits, then disconnect."""
        self._closing = True
        self._wake.set()
        await self._writer
        await self.engine.dispose()

    async def _write_groups(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._waiting = self._waiting, []
            if group:
                await self._commit(group)
            elif self._closing:
                return
            if self._waiting or self._closing:
                self._wake.set()

    async def _commit(self, group: Sequence[tuple[Operation[Any], asyncio.Future[Any]]]) -> None:
        results: list[Any] = []
        for last in (False, False, True):
            try:
                results = await self._transaction([operation for operation, _ in group])
                break
            except Exception as error:
                if last or not _worth_repeating(error):
                    await self._apart(group, error)
                    return
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Refused):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _apart(self, group: Sequence[tuple[Operation[Any], asyncio.Future[Any]]], error: Exception) -> None:
        """A group failed: try each alone, so that one bad operation does not fail the others."""
        if len(group) > 1:
            for each in group:
                await self._commit([each])
            return
        future = group[0][1]
        if not future.done():
            known = isinstance(error, (DBAPIError, OSError))
            future.set_exception(StoreDown(reason_of(error)) if known else error)

    async def _transaction(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        results: list[Any] = []
        async with self.engine.begin() as connection:
            for operation in operations:
                try:
                    results.append(await operation(connection))
                except Refused as refusal:
                    results.append(refusal)
        return results


def reason_of(error: BaseException) -> str:
    """A driver's error as one short line, without the statement and its values."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    line = lines[0] if lines else ""
    return line.rsplit(">: ", 1)[-1][:200] or type(original).__name__


def _worth_repeating(error: Exception) -> bool:
    if not isinstance(error, (OperationalError, InterfaceError, DBAPIError)):
        return False
    words = str(error.orig).lower()
    return any(word in words for word in ("deadlock", "serialize", "database is locked", "closed"))


def _engine(url: str) -> AsyncEngine:
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise StartupError(
            "The run store's address is not one: AGENT_LOOP_DATABASE_URL.",
            "Write sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/NAME.",
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+asyncpg")
    if parsed.drivername == "sqlite":
        parsed = parsed.set(drivername="sqlite+aiosqlite")
    if parsed.drivername not in ("postgresql+asyncpg", "sqlite+aiosqlite"):
        raise StartupError(
            f"Unknown kind of run store: {parsed.drivername} in AGENT_LOOP_DATABASE_URL.",
            "Write sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/NAME.",
        )
    if parsed.drivername == "postgresql+asyncpg":
        return create_async_engine(parsed, pool_pre_ping=True, pool_size=8, max_overflow=8)
    if parsed.database and parsed.database != ":memory:":
        try:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"Cannot make the run store's folder: {Path(parsed.database).parent}: {error.strerror}.",
                "Set AGENT_LOOP_DATA_DIR to a writable folder.",
            ) from None
    engine = create_async_engine(parsed, pool_size=8, max_overflow=8, connect_args={"timeout": 10})

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begun(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        # IMMEDIATE: a transaction that reads first and writes later would fail under a second writer.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


async def _migrate(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Workers that start together take turns; the lock goes with the transaction.
            await connection.execute(text("SELECT pg_advisory_xact_lock(726566)"))
        if await connection.run_sync(_revision) != HEAD:
            await connection.run_sync(_upgrade)


def _revision(connection: Connection) -> str | None:
    if not has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def has_table(connection: Connection, name: str) -> bool:
    """Whether the database has a table of that name."""
    return connection.dialect.has_table(connection, name)


def _upgrade(connection: Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
