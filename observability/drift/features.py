"""Feature rows of ended runs: which columns are compared, and reading them. Numbers and short words, never text.

Rows come from where the service keeps them, by column names only:

    /data/runs.db, sqlite:///data/runs.db    table `run_features` of a SQLite store, read without locking it
    postgresql://user@host/db                the same table (needs the package asyncpg)
    rows.jsonl                               one JSON object a line with the same names
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from observability.drift.errors import RowsUnreadable

NUMBERS = ("prompt_tokens", "completion_tokens", "turns", "tool_calls", "seconds", "ttft_seconds", "tokens_per_second")
FLAGS = ("refusal", "json_valid", "user_retry", "tool_error")
"""0 or 1, or absent where the question does not arise. `tool_error`: the run had a tool that failed."""
WORDS = ("outcome", "finish_reason", "script")
COLUMNS = ("at", "variant", "model", "model_digest", "tool_errors", *NUMBERS, *FLAGS[:3], *WORDS)
MOST = 20_000
"""Rows read at most, the newest."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as columns: `numbers` (NaN: absent), `words`, and the times (seconds since 1970), oldest first."""

    times: NDArray[np.float64]
    numbers: Mapping[str, NDArray[np.float64]]
    words: Mapping[str, NDArray[np.str_]]

    def __len__(self) -> int:
        return len(self.times)

    def where(self, chosen: NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(
            self.times[chosen],
            {name: values[chosen] for name, values in self.numbers.items()},
            {name: values[chosen] for name, values in self.words.items()},
        )


def columns(records: Iterable[Mapping[str, Any]], place: str) -> Rows:
    """Records as columns. Raises RowsUnreadable for a record without a number where one must be."""
    rows = list(records)
    try:
        rows.sort(key=lambda row: float(row["at"]))
        times = np.array([float(row["at"]) for row in rows], dtype=np.float64)
        numbers = {
            name: np.array([_number(row.get(name)) for row in rows], dtype=np.float64)
            for name in (*NUMBERS, *FLAGS[:3])
        }
        numbers["tool_error"] = np.array([float(_number(row.get("tool_errors")) > 0) for row in rows], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise RowsUnreadable(f"Not a feature row ({error}), {place}. Its columns are {', '.join(COLUMNS)}.") from error
    words = {name: np.array([str(row.get(name) or "") for row in rows], dtype=np.str_) for name in WORDS}
    return Rows(times, numbers, words)


def read(location: str, *, since: float = 0.0, variant: str | None = None) -> Rows:
    """Rows that ended after `since`, of one variant if given. Raises RowsUnreadable, naming the place."""
    if location.startswith(("postgresql:", "postgresql+asyncpg:", "postgres:")):
        records = _postgresql(location, since)
    elif location.endswith((".jsonl", ".ndjson")):
        records = _jsonl(Path(location))
    else:
        records = _sqlite(Path(location.split(":///")[-1] if "://" in location else location), since)
    rows = columns((row for row in records if variant in (None, row.get("variant"))), safe(location))
    return rows.where(rows.times > since)


_QUERY = f"SELECT {', '.join(COLUMNS)} FROM run_features WHERE at > {{}} ORDER BY at DESC LIMIT {MOST}"  # noqa: S608


def _sqlite(path: Path, since: float) -> list[dict[str, Any]]:
    if not path.is_file():
        raise RowsUnreadable(f"No run store, {path}. Start the service, or name its database with --rows.")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(_QUERY.format("?"), (since,))]
    except sqlite3.Error as error:
        raise RowsUnreadable(f"Cannot read runs ({error}), {path}. Is this the service's database?") from error


def _postgresql(location: str, since: float) -> list[dict[str, Any]]:
    try:
        import asyncpg
    except ImportError as error:
        raise RowsUnreadable("Reading PostgreSQL needs a package. Install asyncpg.") from error

    async def rows() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(location.replace("+asyncpg", ""), timeout=10)
        try:
            return [dict(row) for row in await connection.fetch(_QUERY.format("$1"), since)]
        finally:
            await connection.close()

    try:
        return asyncio.run(rows())
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        place = safe(location)
        raise RowsUnreadable(f"Cannot read runs ({error}), {place}. Check address, user and password.") from error


def _jsonl(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise RowsUnreadable(f"Cannot read rows ({error}), {path}. Name a file with --rows.") from error
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("no object")
        except ValueError as error:
            if number == len(lines):
                return  # the last line may be half written
            raise RowsUnreadable(
                f"Not a feature row ({error}), {path}:{number}. Correct or remove the line."
            ) from error
        yield record


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def safe(location: str) -> str:
    """A location without its password, for messages."""
    head, at, tail = location.rpartition("@")
    return f"{head.split('://')[0]}://…@{tail}" if at else location
