"""Reading paths: at once where the tree is known here, else by asking for a build.

Each function is a generator for use in a field's function: `tree = yield from folder(ctx, directory)`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from .errors import FieldError
from .files.fs import Fs, Pick, Sub, file_at, folder_at, plain
from .files.tree import Entry, Tree, TreeError, clean
from .needs import Listing, Look, Need, Pull, Solve
from .registry import Call
from .values import CacheMount, Container, Directory, File, TempMount, TreeMount

Asking = Generator[list[Need], list[Any], Any]
TreeSteps = Generator[list[Need], list[Any], Tree]
EntrySteps = Generator[list[Need], list[Any], "tuple[str, Entry] | None"]


def known(ctx: Call, fs: Fs) -> Tree:
    """The tree of a static file system."""
    return plain(fs, ctx.session.builder.trees)


def folder(ctx: Call, directory: Directory, *, contents: bool = True, depth: int | None = None) -> TreeSteps:
    """A directory's tree; without `contents` only names and attributes where a build is needed."""
    if directory.refused is not None:
        raise directory.refused
    shown = directory.shown or directory.path
    if directory.fs.static:
        tree = known(ctx, directory.fs)
        for path, name in directory.above:
            folder_at(tree, path, name)
        return folder_at(tree, directory.path, shown)
    if contents:
        tree = (yield [Pull(directory.fs, directory.path)])[0]
    else:
        tree = (yield [Listing(directory.fs, directory.path, depth)])[0]
    if "" not in tree.entries or tree.entries[""].kind != "dir":
        if tree.entries[""].kind == "other":
            raise FieldError(f"stat {shown}: no such file or directory", lazy=True)
        raise FieldError(f"path {shown} is a file, not a directory", lazy=True)
    return tree


def file(ctx: Call, file: File) -> Generator[list[Need], list[Any], Entry]:
    """A file's entry with its content."""
    if file.refused is not None:
        raise file.refused
    shown = file.shown or file.path
    if file.fs.static:
        return file_at(known(ctx, file.fs), file.path, shown)
    tree: Tree = (yield [Pull(file.fs, file.path)])[0]
    entry = tree.entries[""]
    if entry.kind == "dir":
        raise FieldError(f"path {shown} is a directory, not a file", lazy=True)
    if entry.kind == "other":
        raise FieldError(f"stat {shown}: no such file or directory", lazy=True)
    return entry


def look(ctx: Call, fs: Fs, path: str, *, follow: bool = True) -> EntrySteps:
    """What lies at a path: its real path and entry, or None."""
    if fs.static:
        tree = known(ctx, fs)
        try:
            real = tree.real(clean(path), last=follow)
        except TreeError:
            return None
        return real, tree.entries[real]
    return (yield [Look(fs, clean(path), follow)])[0]


def solve(ctx: Call, fs: Fs) -> Asking:
    """Evaluate a file system and keep nothing of it."""
    if fs.static:
        known(ctx, fs)
    else:
        yield [Solve(fs)]


def within(fs: Fs, path: str) -> Fs:
    """A folder of a file system as a root of its own."""
    return Sub(fs, path) if path else fs


def subdirectory(directory: Directory, path: str) -> Directory:
    """A folder below a directory."""
    at = clean(posixpath.join(directory.path, path.lstrip("/")))
    name = f"{posixpath.basename(at)}/" if at else "/"
    above = (*directory.above, (directory.path, directory.shown or directory.path)) if directory.path else ()
    return Directory(directory.fs, at, path or directory.shown, directory.refused, name, above)


def directory_name(directory: Directory) -> str:
    """What `name` answers."""
    return directory.name


def picked(file: File) -> File:
    """A file alone in a file system of its own, so that it can be changed."""
    return replace(file, fs=Pick(file.fs, file.path, file.name), path=file.name, shown=file.name)


def locate(container: Container, path: str) -> tuple[Fs, str, FieldError | None]:
    """Where a container's absolute path lies: the file system, the path in it, and why it cannot be read."""
    mount = container.mount_at(path)
    while mount is not None and not isinstance(mount, TreeMount):
        if isinstance(mount, CacheMount):
            return container.fs, path, FieldError(f"{path}: cannot retrieve path from cache", lazy=True)
        if isinstance(mount, TempMount):
            return container.fs, path, FieldError(f"{path}: cannot retrieve path from tmpfs", lazy=True)
        rest = tuple(m for m in container.mounts if m is not mount)  # a secret hides nothing from a reader
        container = replace(container, mounts=rest)
        mount = container.mount_at(path)
    if mount is None:
        return container.fs, clean(path), None
    inner = clean(path[len(mount.path.rstrip("/")) :]) if path != mount.path else ""
    return mount.fs, posixpath.join(mount.source_path, inner) if inner else mount.source_path, None
