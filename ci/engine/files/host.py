"""Folders and files of the host, as they were when first asked for.

A snapshot copies what it reads into the session's folder: a step sees one state even while somebody edits,
and the first reading lasts for the session. Owners become root's; modes, times and links stay.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from ci.engine.errors import FieldError

from . import patterns
from .tree import Blob, Entry, Tree

SMALL = 64 * 1024
"""Contents up to here are kept in memory, larger ones are copied to the session's folder."""


class Host:
    """The host as a session sees it."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self._seen: dict[tuple[str, tuple[str, ...], tuple[str, ...], bool], Tree] = {}
        self._files: dict[Path, Tree] = {}
        self._copies = 0
        self._lock = threading.Lock()

    def path(self, text: str) -> Path:
        """An absolute path; relative ones start at the session's folder, `~` at the person's."""
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        return Path(os.path.normpath(self.workdir / path))

    def directory(
        self,
        text: str,
        scratch: Path,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        gitignore: bool = False,
        fresh: bool = False,
    ) -> Tree:
        """A folder's tree, filtered while it is read. Raises FieldError."""
        root = self.path(text)
        if any(p.lstrip("!").startswith("/") for p in include):
            include = ()  # as on a Dagger engine: such a list filters nothing
        key = (str(root), tuple(include), tuple(exclude), gitignore)
        with self._lock:
            if fresh or key not in self._seen:
                self._seen[key] = self._read(root, scratch, include, exclude, gitignore)
            return self._seen[key]

    def file(self, text: str, scratch: Path, *, fresh: bool = False) -> tuple[Tree, str]:
        """A lone file as a tree, and its name. Links are not followed. Raises FieldError."""
        path = self.path(text)
        name = path.name if text else ""
        try:
            kind = os.lstat(path).st_mode
        except OSError:
            kind = 0
        if text and stat.S_ISDIR(kind):
            raise FieldError(f"path {name} is a directory, not a file")
        if not text or not stat.S_ISREG(kind):
            raise FieldError(f"stat {name}: no such file or directory")
        with self._lock:
            if fresh or path not in self._files:
                self._files[path] = Tree({name: self._entry(path, scratch)})
            return self._files[path], name

    def find_up(self, name: str, start: Path) -> str | None:
        """The nearest folder upwards that has `name`, as a path relative to the session's folder."""
        here = start
        while True:
            if os.path.lexists(here / name):
                return posixpath.normpath(os.path.relpath(here / name, self.workdir))
            if here == here.parent:
                return None
            here = here.parent

    def _read(self, root: Path, scratch: Path, include: Sequence[str], exclude: Sequence[str], gitignore: bool) -> Tree:
        if not root.exists():
            raise FieldError(
                "failed to get snapshot: failed to snapshot: failed to receive stat message: rpc error: code = "
                f"NotFound desc = get full root path: rpc error: code = NotFound desc = path not found: {root}"
            )
        if not root.is_dir():
            raise FieldError(f"failed to get snapshot: failed to snapshot: failed to sync: {root}: not a directory")
        kinds: dict[str, bool] = {}
        try:
            self._walk(root, "", kinds, patterns.Matcher(exclude))
            if gitignore:
                gone = patterns.ignored(kinds, lambda p: _text(root / p), _above(root))
                kinds = {p: d for p, d in kinds.items() if p not in gone}
            kept = patterns.keep(kinds, include, exclude) if include or exclude else set(kinds)
        except patterns.BadPattern as bad:
            raise FieldError(str(bad)) from None
        entries = {"": Entry("dir", stat.S_IMODE(root.stat().st_mode), mtime=root.stat().st_mtime)}
        for path in sorted(kept, key=lambda p: p.split("/")):
            try:
                entries[path] = self._entry(root / path, scratch)
            except FileNotFoundError:
                continue  # went away while we read
            except PermissionError:
                raise FieldError(f"open {root / path}: permission denied") from None
        return Tree(entries)

    def _walk(self, root: Path, folder: str, kinds: dict[str, bool], prune: patterns.Matcher) -> None:
        with os.scandir(root / folder) as found:
            for item in found:
                path = posixpath.join(folder, item.name)
                is_dir = item.is_dir(follow_symlinks=False)
                if is_dir and prune.closes(path):
                    continue
                kinds[path] = is_dir
                if is_dir:
                    self._walk(root, path, kinds, prune)

    def _entry(self, path: Path, scratch: Path) -> Entry:
        info = path.lstat()
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISLNK(info.st_mode):
            return Entry("link", 0o777, mtime=info.st_mtime, target=str(path.readlink()))
        if stat.S_ISDIR(info.st_mode):
            return Entry("dir", mode, mtime=info.st_mtime)
        if not stat.S_ISREG(info.st_mode):
            return Entry("other", mode, mtime=info.st_mtime)
        if info.st_size <= SMALL:
            return Entry("file", mode, mtime=info.st_mtime, blob=Blob.of(path.read_bytes()))
        self._copies += 1
        folder = scratch / "host"
        folder.mkdir(exist_ok=True)
        copy = folder / str(self._copies)
        shutil.copyfile(path, copy)
        copy.chmod(mode)
        os.utime(copy, (info.st_mtime, info.st_mtime))
        return Entry("file", mode, mtime=info.st_mtime, blob=Blob(copy.stat().st_size, path=copy))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _above(root: Path) -> list[tuple[str, str]]:
    """Ignore files between a repository's root and a folder in it: the way to the folder, and the text."""
    found: list[tuple[str, str]] = []
    here = root
    while not (here / ".git").exists():
        if here == here.parent:
            return []
        here = here.parent
    for folder in [here, *list(root.parents)[::-1]]:
        if folder != root and (folder == here or here in folder.parents):
            text = _text(folder / ".gitignore")
            if text is not None and not any(f[0] == str(root.relative_to(folder)) for f in found):
                found.append((str(root.relative_to(folder)), text))
    return found
