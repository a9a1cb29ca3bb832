"""A file tree as a value: what a host folder, a new directory or a pulled result holds.

A `Tree` maps paths (relative, no leading slash, `""` is the root) to entries. Trees are never changed; each
operation gives a new one. Everything a Dagger engine does to a directory that did not come out of a container
is done here, in memory, without BuildKit.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

EPOCH = 315532800
"""Time of files that we make: 1980, the earliest that a zip archive can hold."""

LINKS = 40
"""How many links a path may pass, as on Linux."""


class TreeError(Exception):
    """A path that does not do. `kind`: missing, directory (but a file is needed), file (the reverse), exists."""

    def __init__(self, kind: str, path: str) -> None:
        super().__init__(kind, path)
        self.kind = kind
        self.path = path


@dataclass(frozen=True)
class Blob:
    """A file's content, in memory or in a file of the session."""

    size: int
    data: bytes | None = None
    path: Path | None = None

    @classmethod
    def of(cls, data: bytes) -> Blob:
        """A content in memory."""
        return cls(len(data), data)

    def read(self) -> bytes:
        """All of it."""
        if self.data is not None:
            return self.data
        assert self.path is not None
        return self.path.read_bytes()

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, in hexadecimal."""
        if self.data is not None:
            return hashlib.sha256(self.data).hexdigest()
        assert self.path is not None
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


EMPTY_BLOB = Blob.of(b"")


@dataclass(frozen=True)
class Entry:
    """One path. `kind`: "file", "dir", "link" or "other"; `mode` are the permission bits."""

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: float = EPOCH
    blob: Blob = EMPTY_BLOB
    target: str = ""
    stamped: bool = False
    """Whether somebody set the time, so that it counts."""

    @property
    def size(self) -> int:
        """Bytes of the content; of a link, of its target's name."""
        return len(self.target.encode()) if self.kind == "link" else self.blob.size


ROOT_ENTRY = Entry("dir")


def clean(path: str) -> str:
    """A path as trees have it; `..` never leaves the root."""
    return posixpath.normpath("/" + path).lstrip("/")


def parent(path: str) -> str:
    """The folder of a path."""
    return posixpath.dirname(path)


class Tree:
    """See the module."""

    def __init__(self, entries: Mapping[str, Entry] | None = None) -> None:
        self.entries: dict[str, Entry] = dict(entries or {})
        self.entries.setdefault("", ROOT_ENTRY)

    # Reading

    def real(self, path: str, *, last: bool = True) -> str:
        """The path with links followed inside the tree (the last one too, with `last`). Raises TreeError."""
        todo = [p for p in path.split("/") if p and p != "."]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                if done:
                    done.pop()
                continue
            here = "/".join([*done, part])
            entry = self.entries.get(here)
            if entry is None:
                raise TreeError("missing", path)
            if entry.kind == "link" and (todo or last):
                links += 1
                if links > LINKS:
                    raise TreeError("missing", path)
                if entry.target.startswith("/"):
                    done = []
                todo = [p for p in entry.target.split("/") if p and p != "."] + todo
                continue
            if todo and entry.kind != "dir":
                raise TreeError("file", here)
            done.append(part)
        return "/".join(done)

    def get(self, path: str, *, follow: bool = True) -> Entry:
        """The entry at a path. Raises TreeError."""
        return self.entries[self.real(path, last=follow)]

    def names(self, path: str) -> list[str]:
        """Names in a folder (a real path), folders with a slash, in order of their bytes."""
        start = f"{path}/" if path else ""
        found = [
            p[len(start) :] + ("/" if e.kind == "dir" else "")
            for p, e in self.entries.items()
            if p and p.startswith(start) and "/" not in p[len(start) :]
        ]
        return sorted(found, key=lambda n: n.rstrip("/").encode())

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """Every path but the root, folders before what is in them."""
        for path in sorted((p for p in self.entries if p), key=lambda p: [x.encode() for x in p.split("/")]):
            yield path, self.entries[path]

    def kinds(self) -> dict[str, bool]:
        """Every path but the root, with whether it is a folder."""
        return {p: e.kind == "dir" for p, e in self.walk()}

    def below(self, path: str) -> Tree:
        """What lies below a folder (a real path), as a tree of its own."""
        if not path:
            return self
        start = f"{path}/"
        found = {p[len(start) :]: e for p, e in self.entries.items() if p.startswith(start)}
        return Tree(found | {"": self.entries.get(path, ROOT_ENTRY)})

    def text(self, path: str) -> str | None:
        """A file's text, or None where there is none."""
        entry = self.entries.get(path)
        return entry.blob.read().decode(errors="replace") if entry is not None and entry.kind == "file" else None

    # Changing

    def with_parents(self, path: str, made: Entry = ROOT_ENTRY) -> tuple[Tree, str]:
        """Make the folders above a path, following links; the path it really has. Raises TreeError."""
        parts = path.split("/")
        entries = dict(self.entries)
        here = ""
        for part in parts[:-1]:
            step = posixpath.join(here, part)
            try:
                here = Tree(entries).real(step) if step in entries else step
            except TreeError as error:
                if error.kind != "missing":
                    raise
                here = clean(posixpath.join(parent(step), entries[step].target))
            if here not in entries:
                at = ""
                for piece in here.split("/"):
                    at = posixpath.join(at, piece)
                    entries.setdefault(at, made)
            elif entries[here].kind != "dir":
                raise TreeError("file", here)
        return Tree(entries), posixpath.join(here, parts[-1])

    def put(self, path: str, entry: Entry) -> Tree:
        """Place an entry at a path whose parents exist."""
        return Tree(self.entries | {path: entry})

    def without(self, paths: Iterable[str]) -> Tree:
        """Remove paths with all below them."""
        gone = set(paths)
        if not gone:
            return self
        starts = tuple(f"{p}/" for p in gone)
        return Tree({p: e for p, e in self.entries.items() if p not in gone and not p.startswith(starts)})

    def only(self, paths: set[str]) -> Tree:
        """Keep these paths."""
        return Tree({p: e for p, e in self.entries.items() if not p or p in paths})

    def merge(self, other: Tree, at: str) -> Tree:
        """Lay another tree over the folder `at` (a real path), which is made if need be.

        Folders merge and take the other's attributes, all else is replaced. An existing `at` keeps its own.
        """
        entries = dict(self.entries)
        if at and entries.get(at, other.entries[""]).kind != "dir":
            entries = Tree(entries).without([at]).entries
        if at not in entries:
            entries[at] = other.entries[""]
        for path, entry in other.walk():
            target = posixpath.join(at, path)
            old = entries.get(target)
            if old is not None and old.kind == "dir" and entry.kind != "dir":
                entries = Tree(entries).without([target]).entries
            entries[target] = entry
        return Tree(entries)

    def changed(
        self, uid: int | None = None, gid: int | None = None, mtime: float | None = None, mode: int | None = None
    ) -> Tree:
        """Set attributes on everything, the root too."""

        def one(entry: Entry) -> Entry:
            return replace(
                entry,
                uid=entry.uid if uid is None else uid,
                gid=entry.gid if gid is None else gid,
                mtime=entry.mtime if mtime is None else mtime,
                stamped=entry.stamped or mtime is not None,
                mode=entry.mode if mode is None or entry.kind == "link" else mode,
            )

        return Tree({p: one(e) for p, e in self.entries.items()})

    @cached_property
    def key(self) -> str:
        """Hash of paths, kinds, modes, owners and contents; times take part only where somebody set them."""
        digest = hashlib.sha256()
        for path, e in [("", self.entries[""]), *self.walk()]:
            what = e.target if e.kind == "link" else e.blob.sha256 if e.kind == "file" else ""
            when = e.mtime if e.stamped else ""
            digest.update(f"{path}\0{e.kind}\0{e.mode:o}\0{e.uid}\0{e.gid}\0{when}\0{what}\n".encode())
        return digest.hexdigest()

    # Writing

    def write(self, folder: Path, *, owners: bool = False, link: bool = True) -> None:
        """Write the tree into a folder that is made if need be; what is there is merged with or replaced.

        `link` lets contents share the session's own files. Times and modes are kept, owners only if told to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        folders: list[tuple[Path, Entry]] = []
        for path, entry in self.walk():
            target = folder / path
            there = target.is_dir() and not target.is_symlink()
            if entry.kind == "dir":
                if not there:
                    target.unlink(missing_ok=True)
                    target.mkdir()
                folders.append((target, entry))
                continue
            if there:
                shutil.rmtree(target)
            write_entry(target, entry, link=link)
            if owners:
                os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
        for target, entry in reversed(folders):
            target.chmod(entry.mode)
            if owners:
                os.chown(target, entry.uid, entry.gid)
            os.utime(target, (entry.mtime, entry.mtime))


def write_entry(target: Path, entry: Entry, *, link: bool = False, keep_mode: bool = False) -> None:
    """Write a file or link to a path, over what is there (which keeps its mode with `keep_mode`)."""
    if entry.kind == "link":
        if target.is_symlink() or target.exists():
            target.unlink()
        target.symlink_to(entry.target)
        os.utime(target, (entry.mtime, entry.mtime), follow_symlinks=False)
        return
    if entry.kind == "other":
        return
    if not keep_mode and (target.is_symlink() or target.exists()):
        target.unlink()
    source = entry.blob.path
    if source is not None and link and _same_attributes(source, entry):
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    if source is not None:
        shutil.copyfile(source, target)
    else:
        target.write_bytes(entry.blob.read())
    if not keep_mode:
        target.chmod(entry.mode)
    os.utime(target, (entry.mtime, entry.mtime))


def _same_attributes(path: Path, entry: Entry) -> bool:
    stat = path.stat()
    return stat.st_mode & 0o7777 == entry.mode and stat.st_mtime == entry.mtime
