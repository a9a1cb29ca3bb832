"""File systems as expressions: what a container's or directory's files are, before anything is built.

Every operation is a small frozen record of its inputs. One whose inputs are all known here (`static`) is
evaluated in memory by `plain`; one that rests on a base image or a step is lowered to a Dockerfile
(`build/lowering.py`). `key` is a hash of content and operations: equal keys are equal files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

from ci.engine.errors import FieldError

from .tree import Blob, Entry, Tree, TreeError, clean


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
        """The tree of a static one, from the sources' trees. Raises FieldError."""
        raise TypeError(f"only a build knows the files of {type(self).__name__}: ask 'static' first")

    @cached_property
    def evaluated(self) -> Tree:
        """The tree of a static one. Raises FieldError."""
        return plain(self, {})

    def part(self, path: str, lone: bool = False) -> list[Any]:
        """What names a folder of this (or one file, `lone`) in a key: content where that is known, so that a change
        beside it makes nothing else of it."""
        if self.static:
            try:
                tree = self.evaluated
                found = Tree({"f": file_at(tree, path)}) if lone else folder_at(tree, path)
            except FieldError:  # told when it is read
                return [self, path]
            return [found.key]
        return [self, path]


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
class Sub(Fs):
    """A folder of another tree as a root of its own."""

    base: Fs
    path: str

    @cached_property
    def key(self) -> str:
        return digest(["Sub", self.base.part(self.path)])

    def apply(self, *trees: Tree) -> Tree:
        return folder_at(trees[0], self.path)


@dataclass(frozen=True, eq=False)
class Pick(Fs):
    """One file of another tree, alone, under a name."""

    base: Fs
    path: str
    name: str

    @cached_property
    def key(self) -> str:
        return digest(["Pick", self.base.part(self.path, lone=True), self.name])

    def apply(self, *trees: Tree) -> Tree:
        return Tree({self.name: file_at(trees[0], self.path)})


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


# Evaluating


def plain(fs: Fs, known: dict[str, Tree]) -> Tree:
    """The tree of a static file system; `known` keeps those worked out before, by key. Raises FieldError."""
    todo = [fs]
    while todo:
        here = todo[-1]
        if here.key not in known and "evaluated" in here.__dict__:
            known[here.key] = here.evaluated
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
