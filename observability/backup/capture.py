"""Reading files that others are writing, so that the copy is one that existed.

A SQLite database is copied by SQLite's online backup and checked; one that is damaged fails the backup. Its journal
files are part of that copy and are not taken by themselves. Any other file is read again when its size or time changed
meanwhile. Names that begin with a dot are work in progress everywhere in this project and are left out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from observability.backup.errors import SourceBusy, SourceMissing

MAGIC = b"SQLite format 3\x00"
JOURNALS = ("-wal", "-shm", "-journal")
TRIALS = 3
BLOCK = 1 << 20


def walk(root: Path) -> Iterator[Path]:
    """Files and symbolic links below `root`, sorted; raises SourceMissing when it is no folder."""
    if not root.is_dir():
        raise SourceMissing(f"No folder to back up, {root}. Mount or name the right one.")
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = here / name
            # Sockets and pipes have no content; reading a pipe would wait for ever.
            if not name.startswith(".") and (path.is_symlink() or path.is_file()) and not _is_journal(path):
                yield path


def is_sqlite(path: Path) -> bool:
    """Whether the file is a SQLite database."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def copy(source: Path, target: Path) -> tuple[str, int]:
    """Copy `source` to `target`, consistently; returns sha256 (hex) and size in bytes.

    Raises FileNotFoundError when the source went away, SourceBusy when it never held still, OSError from the disk.
    """
    if is_sqlite(source) and _copy_sqlite(source, target):
        return digest(target)
    before = source.stat()
    for trial in range(TRIALS):
        done = _copy_bytes(source, target)
        after = source.stat()
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            return done
        # A file that only grows (a log) is whole up to any point; one that is rewritten is not.
        if after.st_size >= before.st_size and digest(source, limit=done[1]) == done:
            return done
        before = after
        time.sleep(0.05 * (trial + 1))
    raise SourceBusy(f"File kept changing while it was read, {source}. Back up when it is quiet, or leave it out.")


def digest(path: Path, *, limit: int | None = None) -> tuple[str, int]:
    """sha256 (hex) and size of a file, or of its first `limit` bytes."""
    hashed, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK if limit is None else min(BLOCK, limit - size)):
            hashed.update(block)
            size += len(block)
    return hashed.hexdigest(), size


def _copy_bytes(source: Path, target: Path) -> tuple[str, int]:
    hashed, size = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("wb") as writing:
        while block := reading.read(BLOCK):
            writing.write(block)
            hashed.update(block)
            size += len(block)
        writing.flush()
        os.fsync(writing.fileno())
    return hashed.hexdigest(), size


def _copy_sqlite(source: Path, target: Path) -> bool:
    """Copy a database by SQLite itself; False when the file only begins like one. Raises SourceBusy."""
    problem = ""
    for trial in range(TRIALS):
        try:
            _online(source, target)
            return True
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
                return False
            problem = str(error)
        try:
            # A read-only mount cannot hold the shared memory that reading a WAL takes: recover in a copy of both.
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                twin = Path(folder) / "db"
                shutil.copyfile(source, twin)
                for journal in ("-wal", "-journal"):
                    if (beside := source.with_name(source.name + journal)).exists():
                        shutil.copyfile(beside, Path(folder) / f"db{journal}")
                _online(twin, target)
                return True
        except sqlite3.Error as error:
            problem = str(error)
        time.sleep(0.2 * (trial + 1))
    raise SourceBusy(f"Database could not be copied ({problem}), {source}. Check it with 'PRAGMA integrity_check'.")


def _online(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    address = f"file:{quote(str(source.absolute()))}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=10)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)
        # The copy must stand alone: no journal of its own beside it.
        writing.execute("PRAGMA journal_mode=DELETE")
        answer = writing.execute("PRAGMA integrity_check").fetchone()[0]
    if answer != "ok":
        raise sqlite3.DatabaseError(f"copy is not sound: {answer}")


def _is_journal(path: Path) -> bool:
    for ending in JOURNALS:
        if path.name.endswith(ending):
            base = path.with_name(path.name.removesuffix(ending))
            return base.is_file() and is_sqlite(base)
    return False
