"""Fields of `Directory`."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import Any

from ci.engine.errors import ENGINE_ROOT, FieldError
from ci.engine.files import patterns
from ci.engine.files.changes import Copy, Diff, Link, Make, MakeDir, Own, Remove, Stamp
from ci.engine.files.digests import tree_digest
from ci.engine.files.export import write_tree
from ci.engine.files.search import Query, search_tree
from ci.engine.files.tree import TreeError, clean
from ci.engine.needs import DockerBuild, Steps
from ci.engine.reading import directory_name, folder, look, solve, subdirectory, within
from ci.engine.registry import Args, Call, field
from ci.engine.values import Directory, File

from .files import chosen, exists_at, mode_of, stat_at

LONGEST_NAME = 255


def _root(parent: Directory) -> Directory:
    """The same folder as the root of its file system, to operate on."""
    if parent.refused is not None:
        raise parent.refused
    return replace(parent, fs=within(parent.fs, parent.path), path="", shown="")


# Reading


@field("Directory", "entries")
def entries(ctx: Call, parent: Directory, args: Args) -> Steps:
    tree = yield from folder(ctx, parent, contents=False, depth=None if args["path"] else 1)
    path = args["path"] or ""
    shown = f"{ENGINE_ROOT}/{clean(path)}"
    try:
        real = tree.real(clean(path))
    except TreeError as error:
        why = "not a directory" if error.kind == "file" else "no such file or directory"
        raise FieldError(f"open {shown}: {why}") from None
    if tree.entries[real].kind != "dir":
        raise FieldError(f"open {shown}: not a directory")
    return tree.names(real)


@field("Directory", "glob")
def glob(ctx: Call, parent: Directory, args: Args) -> Steps:
    pattern: str = args["pattern"]
    if not pattern:
        raise FieldError("failed to create glob pattern matcher: empty pattern")
    try:
        match = patterns.expression(posixpath.normpath(pattern))
    except patterns.BadPattern as bad:
        raise FieldError(f"failed to create glob pattern matcher: {bad}") from None
    tree = yield from folder(ctx, parent, contents=False)
    return [p + ("/" if e.kind == "dir" else "") for p, e in tree.walk() if match.match(p)]


@field("Directory", "search")
def search(ctx: Call, parent: Directory, args: Args) -> Steps:
    tree = yield from folder(ctx, parent)
    return search_tree(tree, Query.of(args))


@field("Directory", "exists", placeholder=True)
def exists(ctx: Call, parent: Directory, args: Args) -> Steps:
    if not args["path"]:
        return False
    if parent.refused is not None:
        raise parent.refused
    yield from solve(ctx, parent.fs) if parent.fs.static else ()
    return (yield from exists_at(ctx, within(parent.fs, parent.path), args["path"], args))


@field("Directory", "stat")
def stat(ctx: Call, parent: Directory, args: Args) -> Steps:
    if parent.refused is not None:
        raise parent.refused
    if not args["path"]:
        raise FieldError("stat : no such file or directory")
    fs = within(parent.fs, parent.path)
    return (yield from stat_at(ctx, fs, args["path"], args["path"], not args["doNotFollowSymlinks"]))


@field("Directory", "name")
def name(ctx: Call, parent: Directory, args: Args) -> str:
    return directory_name(parent)


@field("Directory", "digest")
def digest(ctx: Call, parent: Directory, args: Args) -> Steps:
    tree = yield from folder(ctx, parent)
    return tree_digest(tree)


@field("Directory", "findUp")
def find_up(ctx: Call, parent: Directory, args: Args) -> Steps:
    tree = yield from folder(ctx, parent, contents=False)
    here = clean(args["start"])
    while True:
        found = posixpath.join(here, args["name"])
        if found in tree.entries:
            return found
        if not here:
            return None
        here = posixpath.dirname(here)


@field("Directory", "sync")
def sync(ctx: Call, parent: Directory, args: Args) -> Steps:
    if parent.refused is not None:
        raise parent.refused
    if parent.fs.static:
        yield from folder(ctx, parent)
    else:
        yield from solve(ctx, within(parent.fs, parent.path))
    return ctx.parent


@field("Directory", "export", effect=True, placeholder=lambda args: args["path"])
def export(ctx: Call, parent: Directory, args: Args) -> Steps:
    tree = yield from folder(ctx, parent)
    target = ctx.session.host.path(args["path"])
    write_tree(tree, target, wipe=args["wipe"])
    return str(target)


# Parts


@field("Directory", "directory")
def directory(ctx: Call, parent: Directory, args: Args) -> Directory:
    return subdirectory(parent, args["path"])


@field("Directory", "file")
def file(ctx: Call, parent: Directory, args: Args) -> Steps:
    """A missing file is refused at once, even for an id."""
    path = clean(args["path"])
    found = File(parent.fs, posixpath.join(parent.path, path), posixpath.basename(path), args["path"])
    if parent.refused is not None:
        raise parent.refused
    if ctx.session.plan is not None and not parent.fs.static:
        return found
    if parent.fs.static and parent.path:
        yield from folder(ctx, parent)
    here = yield from look(ctx, within(parent.fs, parent.path), path)
    if here is None:
        raise FieldError(f"stat {args['path']}: no such file or directory")
    if here[1].kind == "dir":
        raise FieldError(f"path {args['path']} is a directory, not a file")
    return found


# Changing


@field("Directory", "withNewFile")
def with_new_file(ctx: Call, parent: Directory, args: Args) -> Directory:
    path = clean(args["path"])
    if len(posixpath.basename(path).encode()) > LONGEST_NAME:
        raise FieldError("File name length exceeds the maximum supported 255 characters")
    base = _root(parent)
    return replace(base, fs=Make(base.fs, path, args["contents"].encode(), mode_of(args["permissions"])))


@field("Directory", "withNewDirectory")
def with_new_directory(ctx: Call, parent: Directory, args: Args) -> Directory:
    base = _root(parent)
    path = posixpath.normpath(args["path"]) if args["path"] else ""
    path = path if path == ".." or path.startswith("../") else clean(path)
    return replace(base, fs=MakeDir(base.fs, path, args["permissions"] & 0o777 or 0o755))


@field("Directory", "withDirectory")
def with_directory(ctx: Call, parent: Directory, args: Args) -> Directory:
    base, source = _root(parent), chosen(args["source"], args)
    copied = Copy(
        base.fs, source.fs, source.path, clean(args["path"]), owner=args["owner"] or "", mode=args["permissions"]
    )
    return replace(base, fs=copied)


@field("Directory", "withFile")
def with_file(ctx: Call, parent: Directory, args: Args) -> Directory:
    return _copy_file(parent, args["source"], args, args["path"].endswith("/"))


@field("Directory", "withFiles")
def with_files(ctx: Call, parent: Directory, args: Args) -> Directory:
    for each in args["sources"]:
        parent = _copy_file(parent, each, args, True)
    return parent


def _copy_file(parent: Directory, source: File, args: Args, into: bool) -> Directory:
    if source.refused is not None:
        raise source.refused
    base = _root(parent)
    path = clean(args["path"]) + ("/" if into else "")
    copied = Copy(
        base.fs, source.fs, source.path, path, True, source.name, args.get("owner") or "", args["permissions"]
    )
    return replace(base, fs=copied)


def _without(parent: Directory, paths: list[str]) -> Directory:
    base = _root(parent)
    return replace(base, fs=Remove(base.fs, tuple(paths))) if paths else base


@field("Directory", "withoutFile")
def without_file(ctx: Call, parent: Directory, args: Args) -> Directory:
    return _without(parent, [args["path"]])


@field("Directory", "withoutFiles")
def without_files(ctx: Call, parent: Directory, args: Args) -> Directory:
    return _without(parent, args["paths"])


@field("Directory", "withoutDirectory")
def without_directory(ctx: Call, parent: Directory, args: Args) -> Directory:
    return _without(parent, [args["path"]])


@field("Directory", "withSymlink")
def with_symlink(ctx: Call, parent: Directory, args: Args) -> Directory:
    base = _root(parent)
    return replace(base, fs=Link(base.fs, args["target"], clean(args["linkName"])))


@field("Directory", "withTimestamps")
def with_timestamps(ctx: Call, parent: Directory, args: Args) -> Directory:
    base = _root(parent)
    return replace(base, fs=Stamp(base.fs, args["timestamp"]))


@field("Directory", "chown")
def chown(ctx: Call, parent: Directory, args: Args) -> Directory:
    base = _root(parent)
    return replace(base, fs=Own(base.fs, args["path"], args["owner"]))


@field("Directory", "diff")
def diff(ctx: Call, parent: Directory, args: Args) -> Directory:
    base, other = _root(parent), _root(args["other"])
    return replace(base, fs=Diff(base.fs, other.fs))


@field("Directory", "filter")
def filter_(ctx: Call, parent: Directory, args: Args) -> Directory:
    return replace(chosen(parent, args), name=parent.name)


@field("Directory", "withError")
def with_error(ctx: Call, parent: Directory, args: Args) -> Directory:
    if args["err"]:
        raise FieldError(args["err"])
    return parent


@field("Directory", "dockerBuild")
def docker_build(ctx: Call, parent: Directory, args: Args) -> Steps:
    build_args: list[Any] = args["buildArgs"] or []
    need = DockerBuild(
        parent,
        args["dockerfile"],
        args["platform"] or ctx.session.builder.platform,
        args["target"] or "",
        tuple((a["name"], a["value"]) for a in build_args),
        tuple(args["secrets"] or ()),
    )
    return (yield [need])[0]
