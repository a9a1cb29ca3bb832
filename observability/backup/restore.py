"""Putting a snapshot back. Nothing is lost: what was in the way is moved to `.before-restore-TIME` beside it.

Everything is written and checked below `.restoring-ID` first; then the snapshot's top-level entries are swapped in,
each by two renames. So a restore that is interrupted, or meets a damaged content, leaves the old state or can be run
again. A database's journal files go aside with it. Entries that the snapshot does not have stay where they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from observability.backup import postgres
from observability.backup.capture import BLOCK, JOURNALS, digest
from observability.backup.errors import BackupError, Damaged
from observability.backup.repository import Entry, Repository, Snapshot


def restore(
    repository: Repository, snapshot: Snapshot, targets: Mapping[str, Path], *, now: datetime
) -> dict[str, list[str]]:
    """Restore each root of a snapshot to the folder that `targets` gives for it; returns the entries put back.

    Raises Damaged before anything is changed, BackupError when the disk does.
    """
    staged: list[tuple[str, Path, Path]] = []
    try:
        for name, target in targets.items():
            target.mkdir(parents=True, exist_ok=True)
            stage = target / f".restoring-{snapshot.id}"
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir()
            staged.append((name, target, stage))
            for entry in snapshot.entries:
                place = PurePosixPath(entry.path)
                if place.parts[0] == name:
                    _write(repository, snapshot, entry, stage / _inside(place, snapshot))
        put = {name: _swap(stage, target, now) for name, target, stage in staged}
    except OSError as error:
        raise BackupError(f"Restore failed: {error}. Free space or correct permissions, then run it again.") from error
    finally:
        for _, _, stage in staged:
            shutil.rmtree(stage, ignore_errors=True)
    return put


def restore_database(repository: Repository, snapshot: Snapshot, target: postgres.Database, *, now: datetime) -> str:
    """Restore the run store's dump; returns the schema that holds what was there before, or nothing.

    Raises Damaged before anything is changed, DatabaseUnusable after having put the old schema back.
    """
    entry = next(entry for entry in snapshot.entries if entry.path == postgres.ENTRY)
    content = repository.content(entry)
    if not content.is_file() or digest(content) != (entry.sha256, entry.size):
        raise Damaged(f"Content damaged, {entry.path}, {snapshot.id}. Use another backup: 'backup list'.")
    return postgres.restore(target, content, now=now)


def _inside(place: PurePosixPath, snapshot: Snapshot) -> Path:
    """The path below its root. Raises Damaged for one that would leave it."""
    relative = Path(*place.parts[1:])
    if not relative.parts or relative.is_absolute() or ".." in relative.parts:
        raise Damaged(f"Path leads out of the folder, {place}, {snapshot.id}. Use another backup.")
    return relative


def _write(repository: Repository, snapshot: Snapshot, entry: Entry, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.link:
        _write_link(entry, snapshot, target)
        return
    hashed = hashlib.sha256()
    try:
        with repository.content(entry).open("rb") as reading, target.open("wb") as writing:
            while block := reading.read(BLOCK):
                hashed.update(block)
                writing.write(block)
            writing.flush()
            os.fsync(writing.fileno())
    except FileNotFoundError as error:
        raise Damaged(f"Content missing, {entry.path}, {snapshot.id}. Use another backup: 'backup list'.") from error
    if hashed.hexdigest() != entry.sha256:
        raise Damaged(f"Content damaged, {entry.path}, {snapshot.id}. Use another backup: 'backup list'.")
    target.chmod(entry.mode)
    if entry.mtime_ns:
        os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))


def _write_link(entry: Entry, snapshot: Snapshot, target: Path) -> None:
    destination = PurePosixPath(entry.link)
    depth = 0
    for part in (*PurePosixPath(entry.path).parts[1:-1], *destination.parts):
        depth += -1 if part == ".." else 1
        if depth < 0 or destination.is_absolute():
            raise Damaged(f"Link leads out of the folder, {entry.path}, {snapshot.id}. Use another backup.")
    target.symlink_to(entry.link)


def _swap(stage: Path, target: Path, now: datetime) -> list[str]:
    aside = target / f".before-restore-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    names = sorted(path.name for path in stage.iterdir())
    for name in names:
        for old in (name, *(name + ending for ending in JOURNALS)):
            place = target / old
            if place.is_symlink() or place.exists():
                aside.mkdir(exist_ok=True)
                place.rename(_free(aside / old))
        (stage / name).rename(target / name)
    return names


def _free(path: Path) -> Path:
    """`path`, or with a number behind it when it is taken: an interrupted restore has been here before."""
    number = 1
    while path.exists() or path.is_symlink():
        number += 1
        path = path.with_name(f"{path.name.split('~')[0]}~{number}")
    return path
