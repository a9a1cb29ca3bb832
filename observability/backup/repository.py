"""Where backups live: each content once under its sha256, each snapshot a manifest that names contents.

    BACKUPS/objects/3f/3fa9…            a file's content; written under another name, synced, renamed
    BACKUPS/snapshots/ID.json           the manifest, written last: a snapshot without it does not exist
    ID = 20261125T010000Z-checkpoints   time and what

An unchanged checkpoint costs nothing an hour later. A manifest carries a checksum of itself.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from observability.backup import capture, retention
from observability.backup.errors import BackupError, Damaged, NoSuchSnapshot, RepositoryBusy, SourceBusy

FORMAT = 1

Content = bytes | Callable[[Path], None]
"""What comes from elsewhere than a folder: itself, or what writes it to a file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file (or link) of a snapshot. `path` begins with the root's name: `data/runs.db`."""

    path: str
    size: int = 0
    sha256: str = ""
    mode: int = 0o644
    mtime_ns: int = 0
    link: str = ""
    """Where a symbolic link points; empty for a file."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One backup: what it holds, when it was made (UTC), and where its roots were."""

    id: str
    what: str
    created: str
    roots: Mapping[str, str]
    entries: tuple[Entry, ...]

    @property
    def time(self) -> datetime:
        """When it was made."""
        return datetime.fromisoformat(self.created)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(entry.size for entry in self.entries)


class Repository:
    """A folder of backups; made when it does not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._objects = folder / "objects"
        self._snapshots = folder / "snapshots"

    def snapshots(self, what: str | None = None) -> list[Snapshot]:
        """All readable snapshots, newest first; of one kind, if `what` says so. `verify` names unreadable ones."""
        found: list[Snapshot] = []
        for path in self._snapshots.glob("*.json"):
            try:
                found.append(self._read(path))
            except Damaged:
                continue
        return sorted((s for s in found if what in (None, s.what)), key=lambda s: (s.created, s.id), reverse=True)

    def find(self, name: str, what: str | None = None) -> Snapshot:
        """The snapshot of that id, or the newest for `latest`. Raises NoSuchSnapshot, Damaged."""
        if name == "latest":
            if all_of_it := self.snapshots(what):
                return all_of_it[0]
            raise NoSuchSnapshot(
                f"No backup of {what or 'anything'} yet, {self.folder}. Make one with 'backup create'."
            )
        path = self._snapshots / f"{name}.json"
        if "/" in name or not path.is_file():
            raise NoSuchSnapshot(f"No such backup, {name}, {self.folder}. 'backup list' shows what is there.")
        return self._read(path)

    def create(
        self, what: str, roots: Mapping[str, Path], *, extra: Mapping[str, Content] | None = None, now: datetime
    ) -> Snapshot:
        """Make a snapshot of the folders `roots` (name -> folder) and of `extra` (path -> content).

        Raises SourceMissing, SourceBusy, RepositoryBusy, and BackupError when the disk is full.
        """
        with self._held():
            known = self._known(what)
            entries: list[Entry] = []
            try:
                for name, root in sorted(roots.items()):
                    entries += self._take(name, root, known)
                for path, content in sorted((extra or {}).items()):
                    entries.append(self._take_content(path, content))
                return self._commit(what, {name: str(root) for name, root in roots.items()}, entries, now)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise BackupError(
                        f"Disk full while writing a backup, {self.folder}. Free space or keep fewer backups."
                    ) from error
                raise BackupError(f"Backup failed: {error}. Check that folder's permissions.") from error

    def verify(self, snapshot: Snapshot) -> list[str]:
        """Read every content of a snapshot again; one line a problem. Damaged contents are set aside as
        `*.damaged`, so that the next backup of the same file writes them afresh."""
        problems: list[str] = []
        for entry in snapshot.entries:
            if entry.link:
                continue
            path = self._object(entry.sha256)
            try:
                found = capture.digest(path)
            except FileNotFoundError:
                problems.append(f"Content missing, {entry.path}, {snapshot.id}.")
                continue
            if found != (entry.sha256, entry.size):
                path.replace(path.with_name(f"{path.name}.damaged"))
                problems.append(f"Content damaged, {entry.path}, {snapshot.id}.")
        return problems

    def unreadable(self) -> list[str]:
        """Manifests that cannot be trusted, one line each."""
        problems: list[str] = []
        for path in sorted(self._snapshots.glob("*.json")):
            try:
                self._read(path)
            except Damaged as error:
                problems.append(str(error))
        return problems

    def prune(
        self,
        what: str,
        *,
        hourly: int = retention.HOURLY,
        daily: int = retention.DAILY,
        newest: int = retention.NEWEST,
    ) -> list[str]:
        """Forget snapshots beyond what retention keeps, then contents that nothing names; returns the ids."""
        with self._held():
            snapshots = self.snapshots(what)
            kept = retention.kept((s.time for s in snapshots), hourly=hourly, daily=daily, newest=newest)
            gone = [s for s in snapshots if s.time not in kept]
            for snapshot in gone:
                (self._snapshots / f"{snapshot.id}.json").unlink()
            # An unreadable manifest may name contents that cannot be told from leftovers: then nothing is swept.
            if not self.unreadable():
                self._sweep({e.sha256 for s in self.snapshots() for e in s.entries})
            return [snapshot.id for snapshot in gone]

    def content(self, entry: Entry) -> Path:
        """Where an entry's content lies."""
        return self._object(entry.sha256)

    def _take(self, name: str, root: Path, known: Mapping[str, Entry]) -> list[Entry]:
        for _ in range(capture.TRIALS):
            try:
                return [self._take_file(name, root, path, known) for path in capture.walk(root)]
            except FileNotFoundError:
                continue  # a checkpoint was deleted while we looked: look again, so that none is taken in part
        raise SourceBusy(f"Files keep disappearing while they are read, {root}. Back up when it is quiet.")

    def _take_file(self, name: str, root: Path, path: Path, known: Mapping[str, Entry]) -> Entry:
        relative = f"{name}/{path.relative_to(root).as_posix()}"
        if path.is_symlink():
            return Entry(relative, link=os.readlink(path))  # noqa: PTH115 - the text, not a resolved path
        status = path.stat()
        before = known.get(relative)
        if (
            before is not None
            and (before.size, before.mtime_ns) == (status.st_size, status.st_mtime_ns)
            and self._object(before.sha256).exists()
            and not capture.is_sqlite(path)
        ):
            return before
        with self._part() as part:
            digest, size = capture.copy(path, part)
            self._keep(part, digest)
        return Entry(relative, size, digest, status.st_mode & 0o777, status.st_mtime_ns)

    def _take_content(self, path: str, content: Content) -> Entry:
        with self._part() as part:
            if isinstance(content, bytes):
                part.write_bytes(content)
            else:
                content(part)
            digest, size = capture.digest(part)
            self._keep(part, digest)
        return Entry(path, size, digest)

    def _commit(self, what: str, roots: dict[str, str], entries: list[Entry], now: datetime) -> Snapshot:
        stem = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{what}"
        taken = {path.stem for path in self._snapshots.glob("*.json")}
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 1000))) if n not in taken)
        created = now.astimezone(UTC).isoformat(timespec="microseconds")
        snapshot = Snapshot(name, what, created, roots, tuple(sorted(entries, key=lambda e: e.path)))
        body: dict[str, Any] = {"format": FORMAT, **asdict(snapshot)}
        body["digest"] = _digest_of(body)
        with self._part() as part:
            part.write_text(json.dumps(body, indent=1) + "\n")
            _sync(part)
            part.replace(self._snapshots / f"{name}.json")
        _sync(self._snapshots)
        return snapshot

    def _read(self, path: Path) -> Snapshot:
        try:
            body = json.loads(path.read_text())
            if body["digest"] != _digest_of(body):
                raise ValueError("its checksum does not fit")
            if body["format"] != FORMAT:
                raise ValueError(f"its format is {body['format']}, this program reads {FORMAT}")
            entries = tuple(Entry(**entry) for entry in body["entries"])
            return Snapshot(body["id"], body["what"], body["created"], body["roots"], entries)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"Manifest unusable ({error}), {path}. Use another backup: 'backup list'.") from error

    def _known(self, what: str) -> dict[str, Entry]:
        snapshots = self.snapshots(what)
        return {entry.path: entry for entry in snapshots[0].entries} if snapshots else {}

    def _object(self, digest: str) -> Path:
        return self._objects / digest[:2] / digest

    def _keep(self, part: Path, digest: str) -> None:
        target = self._object(digest)
        if target.exists():
            return
        target.parent.mkdir(exist_ok=True)
        _sync(part)
        part.chmod(0o444)
        part.replace(target)

    def _sweep(self, named: set[str]) -> None:
        for path in self._objects.glob("??/*"):
            if path.name not in named:
                path.unlink()
        for part in self.folder.glob(".part-*"):
            shutil.rmtree(part, ignore_errors=True)

    @contextmanager
    def _part(self) -> Generator[Path]:
        folder = Path(tempfile.mkdtemp(prefix=".part-", dir=self.folder))
        try:
            yield folder / "content"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _held(self) -> Generator[None]:
        try:
            for folder in (self._objects, self._snapshots):
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise BackupError(f"Cannot write backups: {error}. Give that folder to the user that runs this.") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RepositoryBusy(f"Another backup is at work, {self.folder}. Wait for it to end.") from error
            yield


def _digest_of(body: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in body.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
