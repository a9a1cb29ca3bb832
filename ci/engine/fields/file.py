"""Fields of `File`."""

from __future__ import annotations

import io
from dataclasses import replace

from ci.engine.errors import FieldError
from ci.engine.files.changes import Own, Rewrite, Stamp
from ci.engine.files.digests import file_digest
from ci.engine.files.export import write_file
from ci.engine.files.search import Query, search_tree
from ci.engine.files.tree import Tree
from ci.engine.needs import Steps
from ci.engine.reading import file, look, picked, solve
from ci.engine.registry import Args, Call, field
from ci.engine.values import File

from .files import stat_of


@field("File", "contents")
def contents(ctx: Call, parent: File, args: Args) -> Steps:
    entry = yield from file(ctx, parent)
    data: bytes = entry.blob.read()
    offset, limit = max(args["offsetLines"] or 0, 0), args["limitLines"]
    if offset or limit is not None:
        lines = io.BytesIO(data).readlines()[offset:]  # only a newline ends a line
        data = b"".join(lines if limit is None or limit < 0 else lines[:limit])
    return data.decode(errors="replace")


@field("File", "size")
def size(ctx: Call, parent: File, args: Args) -> Steps:
    return (yield from file(ctx, parent)).size


@field("File", "name")
def name(ctx: Call, parent: File, args: Args) -> str:
    return parent.name


@field("File", "stat")
def stat(ctx: Call, parent: File, args: Args) -> Steps:
    if ctx.session.plan is not None and not parent.fs.static:
        return None
    return stat_of(parent.name, (yield from file(ctx, parent)))


@field("File", "digest")
def digest(ctx: Call, parent: File, args: Args) -> Steps:
    entry = yield from file(ctx, parent)
    return file_digest(entry, metadata=not args["excludeMetadata"])


@field("File", "search")
def search(ctx: Call, parent: File, args: Args) -> Steps:
    entry = yield from file(ctx, parent)
    return search_tree(Tree({parent.name: entry}), Query.of(args))


@field("File", "sync")
def sync(ctx: Call, parent: File, args: Args) -> Steps:
    if parent.refused is not None:
        raise parent.refused
    if parent.fs.static:
        yield from file(ctx, parent)
    elif (yield from look(ctx, parent.fs, parent.path)) is None:
        raise FieldError(f"stat {parent.shown or parent.path}: no such file or directory", lazy=True)
    else:
        yield from solve(ctx, parent.fs)
    return ctx.parent


@field("File", "export", effect=True, placeholder=lambda args: args["path"])
def export(ctx: Call, parent: File, args: Args) -> Steps:
    entry = yield from file(ctx, parent)
    target = ctx.session.host.path(args["path"])
    return str(write_file(entry, parent.name, target, into=args["allowParentDirPath"]))


@field("File", "withName")
def with_name(ctx: Call, parent: File, args: Args) -> File:
    if "/" in args["name"]:
        raise FieldError(f'file name "{args["name"]}" must not contain a directory')
    return replace(parent, name=args["name"])


@field("File", "withTimestamps")
def with_timestamps(ctx: Call, parent: File, args: Args) -> File:
    alone = picked(parent)
    return replace(alone, fs=Stamp(alone.fs, args["timestamp"]))


@field("File", "chown")
def chown(ctx: Call, parent: File, args: Args) -> File:
    alone = picked(parent)
    return replace(alone, fs=Own(alone.fs, alone.path, args["owner"]))


@field("File", "withReplaced")
def with_replaced(ctx: Call, parent: File, args: Args) -> File:
    alone = picked(parent)
    changed = Rewrite(alone.fs, alone.path, args["search"], args["replacement"], bool(args["all"]), args["firstFrom"])
    return replace(alone, fs=changed)
