"""Fields of the root: where chains begin."""

from __future__ import annotations

from ci.engine.errors import ENGINE_ROOT, FieldError
from ci.engine.files.fs import SCRATCH
from ci.engine.graph import ROOT, Node, call
from ci.engine.registry import Args, Call, field
from ci.engine.session import ENGINE_VERSION
from ci.engine.values import CacheVolume, Container, Directory


@field("Query", "version")
def version(ctx: Call, parent: None, args: Args) -> str:
    return ENGINE_VERSION


@field("Query", "defaultPlatform")
def default_platform(ctx: Call, parent: None, args: Args) -> str:
    return ctx.session.builder.platform


@field("Query", "container")
def container(ctx: Call, parent: None, args: Args) -> Container:
    return Container(args["platform"] or ctx.session.builder.platform)


@field("Query", "directory")
def directory(ctx: Call, parent: None, args: Args) -> Directory:
    return Directory(SCRATCH)


@field("Query", "file")
def file(ctx: Call, parent: None, args: Args) -> Node:
    """A file is a new file in a new directory, also in the paths of its errors."""
    name: str = args["name"]
    if "/" in name:
        raise FieldError(f'file name "{name}" must not contain a directory')
    if name in ("", ".", ".."):
        raise FieldError(f"open {ENGINE_ROOT}: is a directory", lazy=True)
    schema = ctx.session.schema
    made = schema.types["Directory"].fields["withNewFile"].args
    values = {n: a.default for n, a in made.items()}
    values |= {"path": name, "contents": args["contents"], "permissions": args["permissions"]}
    folder = call(call(ROOT, "Directory", "directory", {}), "Directory", "withNewFile", values)
    return call(folder, "File", "file", {"path": name})


@field("Query", "host")
def host(ctx: Call, parent: None, args: Args) -> str:
    return "host"


@field("Query", "cacheVolume")
def cache_volume(ctx: Call, parent: None, args: Args) -> CacheVolume:
    owner: str = args["owner"] or ""
    if owner and not all(p.isdigit() for p in owner.split(":")):
        raise FieldError(
            f"evaluate cache source directory: failed to parse ownership {owner}: open /etc/passwd: "
            "no such file or directory",
            lazy=True,
        )
    return CacheVolume(args["key"], args["source"], args["sharing"] or "SHARED", owner)


@field("Query", "setSecret", memo=False)
def set_secret(ctx: Call, parent: None, args: Args) -> object:
    return ctx.session.secrets.set(args["name"], args["plaintext"])


@field("Query", "secret")
def secret(ctx: Call, parent: None, args: Args) -> object:
    return ctx.session.secrets.at(args["uri"])
