"""File systems as expressions: what a container's or directory's files are, before anything is built.

Every operation is a small frozen record of its inputs. One whose inputs are all known here (`static`) is
evaluated in memory by `plain`; one that rests on a base image or a step is lowered to a Dockerfile
(`build/lowering.py`). `key` is a hash of content and operations: equal keys are equal files.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar

from ci.engine.errors import ENGINE_ROOT, FieldError

from . import patterns
from .tree import Blob, Entry, Tree, TreeError, clean

GLOB = re.compile(r"[*?\[\\]")


@dataclass(frozen=True, eq=False)
class Fs:
    """A file system."""

    lowered: ClassVar[bool] = True
    """Whether a Dockerfile can express the operation on a base that is not known here."""

    @cached_property
    def key(self) -> str:
        """Hash of what this is."""
        return digest([type(self).__name__, *[getattr(self, f.name) for f in fields(self)]])

    @cached_property
    def sources(self) -> tuple[Fs, ...]:
        """The file systems that this one is made from."""
        return tuple(v for f in fields(self) if isinstance(v := getattr(self, f.name), Fs))

    @cached_property
    def static(self) -> bool:
        """Whether no image and no step lies beneath."""
        return all(s.static for s in self.sources)

    def apply(self, *trees: Tree) -> Tree:
        """The tree, from the sources' trees. Raises FieldError."""
        raise NotImplementedError(type(self).__name__)


def digest(value: Any) -> str:
    """Hash of a value made of JSON, bytes, and things that have a `key`."""

    def plain(v: Any) -> Any:
        if hasattr(v, "key"):
            return {"key": v.key}
        if isinstance(v, bytes):
            return {"bytes": hashlib.sha256(v).hexdigest()}
        if isinstance(v, Mapping):
            return {str(k): plain(x) for k, x in v.items()}
        if isinstance(v, list | tuple):
            return [plain(x) for x in v]
        return v

    return hashlib.sha256(json.dumps(plain(value), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Empty(Fs):
    """Nothing at all: scratch."""

    def apply(self, *trees: Tree) -> Tree:
        return Tree()


SCRATCH = Empty()


@dataclass(frozen=True, eq=False)
class Broken(Fs):
    """Files that cannot be had, and why."""

    reason: str

    def apply(self, *trees: Tree) -> Tree:
        raise FieldError(self.reason, lazy=True)


@dataclass(frozen=True, eq=False)
class Held(Fs):
    """A tree that is known: a snapshot of the host, or something pulled."""

    tree: Tree
    label: str = ""
    """A word for it in Dockerfiles and plans."""

    @cached_property
    def key(self) -> str:
        return digest(["Held", self.tree.key])

    def apply(self, *trees: Tree) -> Tree:
        return self.tree


@dataclass(frozen=True, eq=False)
class Image(Fs):
    """The files of a base image."""

    reference: str
    """Normalised, with the digest where it is known."""
    platform: str
    context: str = ""
    """Where BuildKit finds it if not in a registry: an OCI layout, as a build context."""
    address: str = ""
    """As the pipeline wrote it."""

    @cached_property
    def key(self) -> str:
        return digest(["Image", self.reference, self.platform])

    @property
    def static(self) -> bool:  # type: ignore[override]
        return False


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
    """A new folder with its parents."""

    base: Fs
    path: str
    mode: int

    def apply(self, *trees: Tree) -> Tree:
        tree = trees[0]
        if self.path.startswith("../") or self.path == "..":
            raise FieldError(f"cannot create directory outside parent: {self.path}", lazy=True)
        if not self.path:
            return tree
        try:
            tree, path = tree.with_parents(self.path)
        except TreeError:
            raise FieldError(f"mkdir /{self.path}: not a directory", lazy=True) from None
        old = tree.entries.get(path)
        if old is None:
            return tree.put(path, Entry("dir", self.mode))
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
            try:
                base, at = base.with_parents(at)
                at = base.real(at) if at in base.entries else at
            except TreeError:
                raise FieldError(f'cannot copy to non-directory "/{posixpath.dirname(at)}"', lazy=True) from None
        old = base.entries.get(at)
        merged = base.merge(part, at)
        if old is not None and old.kind == "dir" and self.owner and at:
            merged = merged.put(at, replace(old, uid=uid or 0, gid=gid or 0))
        return merged

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
class Sub(Fs):
    """A folder of another tree as a root of its own."""

    base: Fs
    path: str

    def apply(self, *trees: Tree) -> Tree:
        return folder_at(trees[0], self.path)


@dataclass(frozen=True, eq=False)
class Pick(Fs):
    """One file of another tree, alone, under a name."""

    base: Fs
    path: str
    name: str

    def apply(self, *trees: Tree) -> Tree:
        return Tree({self.name: file_at(trees[0], self.path)})


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


# Reading paths


def folder_at(tree: Tree, path: str, shown: str | None = None) -> Tree:
    """What lies below a folder. Raises FieldError as `Directory.directory` words it."""
    shown = path if shown is None else shown
    try:
        real = tree.real(clean(path))
    except TreeError as error:
        raise FieldError(_stat(shown, error), lazy=True) from None
    if tree.entries[real].kind != "dir":
        raise FieldError(f"path {shown} is a file, not a directory", lazy=True)
    return tree.below(real)


def file_at(tree: Tree, path: str, shown: str | None = None) -> Entry:
    """The file at a path. Raises FieldError."""
    shown = path if shown is None else shown
    try:
        entry = tree.get(clean(path))
    except TreeError as error:
        raise FieldError(_stat(shown, error), lazy=True) from None
    if entry.kind == "dir":
        raise FieldError(f"path {shown} is a directory, not a file", lazy=True)
    return entry


def _stat(shown: str, error: TreeError) -> str:
    why = "not a directory" if error.kind == "file" else "no such file or directory"
    return f"stat {shown}: {why}"


# Owners


def owner_ids(owner: str, tree: Tree, within: str) -> tuple[int, int]:
    """User and group ids of `user[:group]`; a lone number is its own group. Raises FieldError."""
    if not owner:
        return 0, 0
    user, _, group = owner.partition(":")
    if user.isdigit() and (not group or group.isdigit()):
        return int(user), int(group or user)
    passwd, groups = tree.text("etc/passwd"), tree.text("etc/group")
    if passwd is None:
        if within == "container":
            raise FieldError(
                f"failed to resolve ownership for {owner}: open /etc/passwd: stat /etc/passwd: "
                "no such file or directory",
                lazy=True,
            )
        raise FieldError(f"failed to parse ownership {owner}: open /etc/passwd: no such file or directory", lazy=True)
    return names_to_ids(owner, passwd, groups or "")


def names_to_ids(owner: str, passwd: str, groups: str) -> tuple[int, int]:
    """Ids of `user[:group]` by the text of /etc/passwd and /etc/group. Raises FieldError."""
    user, _, group = owner.partition(":")
    uid, gid = -1, -1
    if user.isdigit():
        uid = gid = int(user)
    else:
        for line in passwd.splitlines():
            parts = line.split(":")
            if parts[0] == user and len(parts) > 3:
                uid, gid = int(parts[2]), int(parts[3])
        if uid < 0:
            raise FieldError(f"failed to resolve ownership for {owner}: find uid: no such user: {user}", lazy=True)
    if group.isdigit():
        gid = int(group)
    elif group:
        known = {p[0]: int(p[2]) for p in (line.split(":") for line in groups.splitlines()) if len(p) > 2}
        if group not in known:
            raise FieldError(f"failed to resolve ownership for {owner}: find gid: no such group: {group}", lazy=True)
        gid = known[group]
    return uid, gid


# Evaluating


def plain(fs: Fs, known: dict[str, Tree]) -> Tree:
    """The tree of a static file system; `known` keeps those worked out before, by key. Raises FieldError."""
    todo = [fs]
    while todo:
        here = todo[-1]
        if here.key in known:
            todo.pop()
            continue
        missing = [s for s in here.sources if s.key not in known]
        if missing:
            todo += missing
            continue
        known[here.key] = here.apply(*[known[s.key] for s in here.sources])
        todo.pop()
    return known[fs.key]


def file_of(content: bytes, mode: int = 0o644, name: str = "file") -> Held:
    """A tree with one file."""
    return Held(Tree({name: Entry("file", mode, blob=Blob.of(content))}))
