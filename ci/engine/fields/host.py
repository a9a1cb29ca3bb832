"""Fields of `Host`."""

from __future__ import annotations

import posixpath

from ci.engine.errors import Unsupported
from ci.engine.files.fs import Held
from ci.engine.registry import Args, Call, field
from ci.engine.values import Directory, File


@field("Host", "directory")
def directory(ctx: Call, parent: str, args: Args) -> Directory:
    session = ctx.session
    tree = session.host.directory(
        args["path"],
        session.scratch,
        include=args["include"] or (),
        exclude=args["exclude"] or (),
        gitignore=args["gitignore"],
        fresh=args["noCache"],
    )
    return Directory(Held(tree, posixpath.basename(str(session.host.path(args["path"]))) or "host"))


@field("Host", "file")
def file(ctx: Call, parent: str, args: Args) -> File:
    tree, name = ctx.session.host.file(args["path"], ctx.session.scratch, fresh=args["noCache"])
    return File(Held(tree, name), name, name)


@field("Host", "findUp", memo=False)
def find_up(ctx: Call, parent: str, args: Args) -> str | None:
    return ctx.session.host.find_up(args["name"], ctx.session.workdir)


@field("Host", "containerImage")
def container_image(ctx: Call, parent: str, args: Args) -> None:
    raise Unsupported("Host.containerImage", "Export the image as a tarball and use Container.import.")
