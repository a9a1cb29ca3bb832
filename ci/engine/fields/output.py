"""Fields of `Container` that make an image of it, and `import`, which reads one."""

from __future__ import annotations

from dataclasses import replace

from ci.engine.build.images import PARSE, Reference, parse
from ci.engine.build.imports import imported
from ci.engine.errors import FieldError, Unsupported
from ci.engine.files.archive import ArchiveError, Tarball, packed
from ci.engine.files.fs import Broken, Held
from ci.engine.needs import Ship, Steps
from ci.engine.reading import file as read_file
from ci.engine.registry import Args, Call, field
from ci.engine.values import Container, File

from .container import configured

NO_DIGEST = "sha256:" + "0" * 64


def _ship(parent: Container, args: Args, how: str, target: str) -> Ship:
    return Ship(
        how,
        parent,
        target,
        tuple(args["platformVariants"] or ()),
        args["forcedCompression"],
        args["mediaTypes"] or "OCIMediaTypes",
    )


@field("Container", "asTarball")
def as_tarball(ctx: Call, parent: Container, args: Args) -> File:
    return File(Tarball(_ship(parent, args, "file", "")), "container.tar", "container.tar")


@field("Container", "export", effect=True, placeholder=lambda args: args["path"])
def export(ctx: Call, parent: Container, args: Args) -> Steps:
    path = parent.expand(args["path"]) if args["expand"] else args["path"]
    target = ctx.session.host.path(path)
    yield [_ship(parent, args, "file", str(target))]
    return str(target)


@field("Container", "exportImage", effect=True)
def export_image(ctx: Call, parent: Container, args: Args) -> Steps:
    _name(args["name"])
    yield [_ship(parent, args, "store", args["name"])]


def _name(text: str) -> Reference:
    """The name that an image shall have. Raises FieldError."""
    try:
        return parse(text)
    except FieldError as bad:
        raise FieldError(f"failed to parse image address {bad.message.removeprefix(f'{PARSE} ')}") from None


@field("Container", "publish", memo=False, effect=True, placeholder=lambda args: f"{args['address']}@{NO_DIGEST}")
def publish(ctx: Call, parent: Container, args: Args) -> Steps:
    if args["registryService"] is not None:
        raise Unsupported("Container.publish(registryService:)")
    named = _name(args["address"])
    digest = (yield [_ship(parent, args, "push", args["address"])])[0]
    return f"{named.full}@{digest}"


@field("Container", "import")
def import_(ctx: Call, parent: Container, args: Args) -> Steps:
    """Nothing of the container stays. An archive that cannot be read fails when its files are wanted."""
    source: File = args["source"]
    if ctx.session.plan is not None and not source.fs.static:
        return Container(parent.platform, fs=source.fs)
    entry = yield from read_file(ctx, source)
    try:
        archive = packed(entry.blob.read(), parent.platform, args["tag"])
        if archive.zstd:
            image, found = imported(archive, ctx.session.scratch)
            ctx.session.images.keep(image, found)
            return configured(Container(image.platform, fs=image), found.config)
        content = archive.content()
    except ArchiveError as bad:
        return Container(parent.platform, fs=Broken(f"image archive import: {bad}"))
    made = configured(Container(content.platform, fs=Held(content.tree, "image")), content.config)
    return replace(made, base_env=())
