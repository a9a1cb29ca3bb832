"""Changes to file systems: new files, copies, removals and the like, each a record of its inputs.

`apply` does it in memory, where everything is known here; else `build/edits.py` writes it as Dockerfile instructions.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from ci.engine.errors import ENGINE_ROOT, FieldError

from . import patterns
from .fs import Fs, digest, file_at, folder_at
from .owners import owner_ids
from .tree import Blob, Entry, Tree, TreeError, clean

GLOB = re.compile(r"\*")
"""What makes a pattern of a path to remove: without a star it is a name, brackets and all (`app/[id]`)."""


@dataclass(frozen=True, eq=False)
class Make(Fs):
    """A new file. `within`: "container" or "directory", which differ in what they refuse."""

    base: Fs
    path: str
    content: bytes
    mode: int
    owner: str = ""
    within: str = "directory"

    def apply(self, *trees: Tree) -> Tree:
        tree = trees[0]
        uid, gid = owner_ids(self.owner, tree, self.within)
        entry = Entry("file", self.mode, uid, gid, blob=Blob.of(self.content))
        if not self.path:
            raise FieldError(f"open {ENGINE_ROOT}: is a directory", lazy=True)
        try:
            tree, path = tree.with_parents(self.path)
        except TreeError:
            if self.within == "container":
                raise FieldError(
                    f'cannot copy directory to non-directory "/{posixpath.dirname(self.path)}"', lazy=True
                ) from None
            raise FieldError(f"lstat {ENGINE_ROOT}/{self.path}: not a directory", lazy=True) from None
        old = tree.entries.get(path)
        if old is not None and old.kind == "dir":
            message = (
                f"path /{self.path} is a directory, not a file"
                if self.within == "container"
                else f"open {ENGINE_ROOT}/{self.path}: is a directory"
            )
            raise FieldError(message, lazy=True)
        return tree.put(path, entry)


@dataclass(frozen=True, eq=False)
class MakeDir(Fs):
    """A new folder; folders that are made on the way to it have its mode."""

    base: Fs
    path: str
    mode: int

    def apply(self, *trees: Tree) -> Tree:
        tree = trees[0]
        if self.path.startswith("../") or self.path == "..":
            raise FieldError(f"cannot create directory outside parent: {self.path}", lazy=True)
        if not self.path:
            return tree
        made = Entry("dir", self.mode)
        try:
            tree, path = tree.with_parents(self.path, made)
        except TreeError:
            raise FieldError(f"mkdir /{self.path}: not a directory", lazy=True) from None
        old = tree.entries.get(path)
        if old is None:
            return tree.put(path, made)
        if old.kind != "dir":
            raise FieldError(f"mkdir /{self.path}: not a directory", lazy=True)
        return tree


@dataclass(frozen=True, eq=False)
class Copy(Fs):
    """Another tree's folder or file laid into this one.

    `lone`: the source path is a file; it becomes `path`, or goes into it under `name` where `path` is a folder
    or ends in a slash.
    """

    base: Fs
    source: Fs
    source_path: str
    path: str
    lone: bool = False
    name: str = ""
    owner: str = ""
    mode: int | None = None
    within: str = "directory"

    @cached_property
    def key(self) -> str:
        source = self.source.part(self.source_path, self.lone)
        return digest(["Copy", self.base, source, self.path, self.lone, self.name, self.owner, self.mode, self.within])

    def apply(self, *trees: Tree) -> Tree:
        base, source = trees
        uid, gid = owner_ids(self.owner, base, self.within) if self.owner else (None, None)
        at = clean(self.path)
        if self.lone:
            entry = file_at(source, self.source_path)
            changed = Tree({"f": entry}).changed(uid, gid, mode=self.mode).entries["f"]
            old = self._existing(base, at)
            if self.path.endswith("/") or not at or (old is not None and old.kind == "dir"):
                at = posixpath.join(at, self.name)
            try:
                base, at = base.with_parents(at)
            except TreeError:
                raise FieldError(f'cannot copy to non-directory "/{posixpath.dirname(at)}"', lazy=True) from None
            if at in base.entries and base.entries[at].kind == "dir":
                base = base.without([at])
            return base.put(at, changed)
        part = folder_at(source, self.source_path)
        part = part.changed(uid, gid, mode=self.mode if self.within == "directory" else None)
        if at:
            base, at = self._room(base, at)
        old = base.entries.get(at)
        merged = base.merge(part, at)
        if old is not None and old.kind == "dir" and self.owner and at:
            merged = merged.put(at, replace(old, uid=uid or 0, gid=gid or 0))
        return merged

    @staticmethod
    def _room(base: Tree, path: str) -> tuple[Tree, str]:
        """A tree with the folders above a path, and the path's real one; files in their place are taken away."""
        while True:
            try:
                base, at = base.with_parents(path)
                return base, base.real(at) if at in base.entries else at
            except TreeError as error:
                if error.kind != "file":
                    raise FieldError(f'cannot copy to non-directory "/{posixpath.dirname(path)}"', lazy=True) from None
                base = base.without([error.path])

    @staticmethod
    def _existing(tree: Tree, path: str) -> Entry | None:
        try:
            return tree.get(path)
        except TreeError:
            return None


@dataclass(frozen=True, eq=False)
class Remove(Fs):
    """Paths taken away; each may be a pattern, and may be missing."""

    base: Fs
    paths: tuple[str, ...]

    def apply(self, *trees: Tree) -> Tree:
        tree = trees[0]
        gone: set[str] = set()
        for path in self.paths:
            where = clean(path)
            if not where:
                raise FieldError(f"unlinkat {ENGINE_ROOT}: device or resource busy", lazy=True)
            if GLOB.search(where):
                match = name_pattern(where)
                gone |= {p for p in tree.entries if p and match.match(p)}
                continue
            try:
                gone.add(tree.real(where, last=False))
            except TreeError:
                continue
        return tree.without(gone)


def name_pattern(text: str) -> re.Pattern[str]:
    """A pattern as the shell has it for removing: `**` is no more than `*`. Raises FieldError."""
    try:
        return patterns.expression(re.sub(r"\*+", "*", text))
    except patterns.BadPattern as bad:
        raise FieldError(str(bad), lazy=True) from None


@dataclass(frozen=True, eq=False)
class Link(Fs):
    """A symbolic link."""

    base: Fs
    target: str
    path: str

    def apply(self, *trees: Tree) -> Tree:
        try:
            tree, path = trees[0].with_parents(self.path)
        except TreeError:
            raise FieldError(
                f"mkdir {ENGINE_ROOT}/{posixpath.dirname(self.path)}: not a directory", lazy=True
            ) from None
        if path in tree.entries:
            raise FieldError(f"symlink {self.target} {ENGINE_ROOT}/{self.path}: file exists", lazy=True)
        return tree.put(path, Entry("link", 0o777, target=self.target))


@dataclass(frozen=True, eq=False)
class Stamp(Fs):
    """Every time set to one."""

    base: Fs
    seconds: int

    def apply(self, *trees: Tree) -> Tree:
        return trees[0].changed(mtime=float(self.seconds))


@dataclass(frozen=True, eq=False)
class Own(Fs):
    """A path and all below it given to somebody."""

    base: Fs
    path: str
    owner: str

    def apply(self, *trees: Tree) -> Tree:
        tree = trees[0]
        uid, gid = owner_ids(self.owner, tree, "directory")
        at = clean(self.path)
        if at and at not in tree.entries:
            raise FieldError(f"lstat {ENGINE_ROOT}/{at}: no such file or directory", lazy=True)
        start = f"{at}/" if at else ""
        return Tree(
            {
                p: replace(e, uid=uid, gid=gid) if p == at or (p.startswith(start) and p) else e
                for p, e in tree.entries.items()
            }
        )


@dataclass(frozen=True, eq=False)
class Filter(Fs):
    """What patterns and ignore files leave of a folder."""

    lowered: ClassVar[bool] = False
    base: Fs
    path: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool = False

    def apply(self, *trees: Tree) -> Tree:
        return filtered(folder_at(trees[0], self.path), self.include, self.exclude, self.gitignore)


def filtered(tree: Tree, include: tuple[str, ...], exclude: tuple[str, ...], gitignore: bool) -> Tree:
    """See `Filter`. Raises FieldError for a bad pattern."""
    kinds = tree.kinds()
    try:
        if gitignore:
            gone = patterns.ignored(kinds, tree.text)
            kinds = {p: d for p, d in kinds.items() if p not in gone}
            tree = tree.without(gone)
        if not include and not exclude:
            return tree
        return tree.only(patterns.keep(kinds, include, exclude))
    except patterns.BadPattern as bad:
        raise FieldError(str(bad), lazy=True) from None


@dataclass(frozen=True, eq=False)
class Diff(Fs):
    """What the other tree has that this one has not, or has otherwise."""

    lowered: ClassVar[bool] = False
    base: Fs
    other: Fs

    def apply(self, *trees: Tree) -> Tree:
        before, after = trees
        changed: set[str] = set()
        for path, entry in after.walk():
            old = before.entries.get(path)
            same = old is not None and _same(old, entry)
            if not same:
                while path and path not in changed:
                    changed.add(path)
                    path = posixpath.dirname(path)
        return after.only(changed)


def _same(a: Entry, b: Entry) -> bool:
    if (a.kind, a.mode, a.uid, a.gid, a.target) != (b.kind, b.mode, b.uid, b.gid, b.target):
        return False
    return a.kind != "file" or (a.blob.size == b.blob.size and a.blob.sha256 == b.blob.sha256)


@dataclass(frozen=True, eq=False)
class Rewrite(Fs):
    """One file's text with a string replaced."""

    lowered: ClassVar[bool] = False
    base: Fs
    path: str
    search: str
    replacement: str
    everywhere: bool
    first_from: int | None

    def apply(self, *trees: Tree) -> Tree:
        tree = trees[0]
        entry = file_at(tree, self.path)
        text = entry.blob.read().decode(errors="surrogateescape")
        spots = [m.start() for m in re.finditer(re.escape(self.search), text)] if self.search else []
        if self.first_from is not None:
            line_start = 0
            for _ in range(self.first_from - 1):
                line_start = text.find("\n", line_start) + 1
                if line_start == 0:
                    spots = []
                    break
            spots = [s for s in spots if s >= line_start]
            spots = spots if self.everywhere else spots[:1]
        if not spots:
            raise FieldError("search string not found", lazy=True)
        if len(spots) > 1 and not self.everywhere:
            raise FieldError(f"search string found multiple times: {self._places(text, spots)}", lazy=True)
        for spot in reversed(spots):
            text = text[:spot] + self.replacement + text[spot + len(self.search) :]
        data = text.encode(errors="surrogateescape")
        return tree.put(tree.real(clean(self.path)), replace(entry, blob=Blob.of(data)))

    def _places(self, text: str, spots: list[int]) -> str:
        found: list[str] = []
        for spot in spots:
            start = text.rfind("\n", 0, spot) + 1
            line = text.count("\n", 0, spot) + 1
            found.append(f"line {line} ({spot - start}-{spot - start + len(self.search)})")
        return ", ".join(found)
