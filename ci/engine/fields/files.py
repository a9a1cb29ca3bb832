"""Fields of `Container` that set or read files."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from ci.engine.errors import ENGINE_ROOT, FieldError
from ci.engine.files.changes import Copy, Filter, Link, Make, Remove
from ci.engine.files.fs import Fs
from ci.engine.files.tree import Entry, clean
from ci.engine.needs import Need, Steps
from ci.engine.reading import locate, look, within
from ci.engine.registry import Args, Call, field
from ci.engine.values import Container, Directory, File

from .mounts import inside, path_of, relative
from .records import Stat

KINDS = {"REGULAR_TYPE": "file", "DIRECTORY_TYPE": "dir", "SYMLINK_TYPE": "link"}


def edited(parent: Container, path: str, edit: Callable[[Fs, str], Fs]) -> Container:
    """With one operation done at an absolute path: in the mount that it lies in, else in the root."""
    mount = inside(parent, path)
    if mount is None:
        return parent.with_(fs=edit(parent.fs, clean(path)))
    changed = replace(mount, fs=edit(mount.fs, relative(mount, path)))
    return parent.with_(mounts=tuple(changed if m is mount else m for m in parent.mounts))


def mode_of(permissions: int | None) -> int:
    """Permission bits of a new file: none given means 0644, what is above them is dropped."""
    return (permissions or 0) & 0o777 or 0o644


@field("Container", "withNewFile")
def with_new_file(ctx: Call, parent: Container, args: Args) -> Container:
    given = parent.expand(args["path"]) if args["expand"] else args["path"]
    path = parent.absolute(given)
    if given in ("", "/") or not clean(path):
        raise FieldError(f"failed to create new file {given}: open {ENGINE_ROOT}: is a directory", lazy=True)
    content = args["contents"].encode()
    mode = mode_of(args["permissions"])
    return edited(parent, path, lambda fs, at: Make(fs, at, content, mode, args["owner"] or "", "container"))


@field("Container", "withFile")
def with_file(ctx: Call, parent: Container, args: Args) -> Container:
    return _copy_file(parent, args["source"], path_of(parent, args), args, args["path"].endswith("/"))


@field("Container", "withFiles")
def with_files(ctx: Call, parent: Container, args: Args) -> Container:
    for each in args["sources"]:
        parent = _copy_file(parent, each, path_of(parent, args), args, True)
    return parent


def _copy_file(parent: Container, source: File, path: str, args: Args, into: bool) -> Container:
    if source.refused is not None:
        raise source.refused
    slash = "/" if into else ""
    return edited(
        parent,
        path,
        lambda fs, at: Copy(
            fs,
            source.fs,
            source.path,
            at + slash,
            True,
            source.name,
            args["owner"] or "",
            args["permissions"],
            "container",
        ),
    )


@field("Container", "withDirectory")
def with_directory(ctx: Call, parent: Container, args: Args) -> Container:
    source = chosen(args["source"], args)
    return edited(
        parent,
        path_of(parent, args),
        lambda fs, at: Copy(fs, source.fs, source.path, at, owner=args["owner"] or "", within="container"),
    )


def chosen(source: Directory, args: Args) -> Directory:
    """A directory filtered by the arguments that every copy has."""
    if source.refused is not None:
        raise source.refused
    include, exclude = tuple(args["include"] or ()), tuple(args["exclude"] or ())
    if not include and not exclude and not args["gitignore"]:
        return source
    return Directory(Filter(source.fs, source.path, include, exclude, args["gitignore"]), "")


@field("Container", "withoutDirectory")
def without_directory(ctx: Call, parent: Container, args: Args) -> Container:
    return edited(parent, path_of(parent, args), lambda fs, at: Remove(fs, (at,)))


@field("Container", "withoutFile")
def without_file(ctx: Call, parent: Container, args: Args) -> Container:
    return edited(parent, path_of(parent, args), lambda fs, at: Remove(fs, (at,)))


@field("Container", "withoutFiles")
def without_files(ctx: Call, parent: Container, args: Args) -> Container:
    for path in args["paths"]:
        text = parent.expand(path) if args["expand"] else path
        parent = edited(parent, parent.absolute(text), lambda fs, at: Remove(fs, (at,)))
    return parent


@field("Container", "withSymlink")
def with_symlink(ctx: Call, parent: Container, args: Args) -> Container:
    target = parent.expand(args["target"]) if args["expand"] else args["target"]
    return edited(parent, path_of(parent, args, "linkName"), lambda fs, at: Link(fs, target, at))


@field("Container", "withRootfs")
def with_rootfs(ctx: Call, parent: Container, args: Args) -> Container:
    source: Directory = args["directory"]
    return parent.with_(fs=within(source.fs, source.path))


@field("Container", "rootfs")
def rootfs(ctx: Call, parent: Container, args: Args) -> Directory:
    return Directory(parent.fs)


@field("Container", "directory")
def directory(ctx: Call, parent: Container, args: Args) -> Directory:
    path = path_of(parent, args)
    fs, at, refused = locate(parent, path)
    name = f"{posixpath.basename(path)}/" if path != "/" else "/"
    return Directory(fs, at, path, refused, name)


@field("Container", "file")
def file(ctx: Call, parent: Container, args: Args) -> File:
    path = path_of(parent, args)
    fs, at, refused = locate(parent, path)
    return File(fs, at, posixpath.basename(path), path, refused)


@field("Container", "exists", placeholder=True)
def exists(ctx: Call, parent: Container, args: Args) -> Steps:
    path = path_of(parent, args)
    fs, at, refused = locate(parent, path)
    if refused is not None:
        raise FieldError(f"failed to locate path {path}: {refused.message}")
    return (yield from exists_at(ctx, fs, at, args))


def exists_at(ctx: Call, fs: Fs, path: str, args: Args) -> Steps:
    """Whether a path is there, and of the kind that is asked for."""
    wanted = KINDS.get(args["expectedType"] or "")
    follow = not args["doNotFollowSymlinks"] and wanted != "link"
    found = yield from look(ctx, fs, path, follow=follow)
    return found is not None and (wanted is None or found[1].kind == wanted)


@field("Container", "stat")
def stat(ctx: Call, parent: Container, args: Args) -> Steps:
    path = path_of(parent, args)
    fs, at, refused = locate(parent, path)
    if refused is not None:
        raise refused
    return (yield from stat_at(ctx, fs, at, path, not args["doNotFollowSymlinks"]))


def stat_at(ctx: Call, fs: Fs, path: str, shown: str, follow: bool) -> Generator[list[Need], list[Any], Stat]:
    """What `stat` tells of a path; of a link's target under the target's name. Raises FieldError."""
    if ctx.session.plan is not None and not fs.static:
        return Stat(posixpath.basename(path), 0, 0o644, "file")
    found: tuple[str, Entry] | None = yield from look(ctx, fs, path, follow=follow)
    if found is None:
        raise FieldError(f"stat {shown}: no such file or directory")
    real, entry = found
    return stat_of(posixpath.basename(real) or posixpath.basename(path) or "/", entry)


def stat_of(name: str, entry: Entry) -> Stat:
    """An entry as `stat` tells it."""
    return Stat(name, entry.size, entry.mode & 0o777, entry.kind)
