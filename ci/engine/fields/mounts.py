"""Fields of `Container` that mount something."""

from __future__ import annotations

import posixpath

from ci.engine.errors import FieldError, Unsupported
from ci.engine.registry import Args, Call, field
from ci.engine.values import CacheMount, Container, Mount, SecretMount, TempMount, TreeMount


def path_of(parent: Container, args: Args, name: str = "path") -> str:
    """An absolute path from an argument, variables expanded if asked for."""
    text = parent.expand(args[name]) if args.get("expand") else args[name]
    return parent.absolute(text)


def mounted(parent: Container, mount: Mount) -> Container:
    """With a mount: it replaces one at the same path and hides those below."""
    below = mount.path.rstrip("/") + "/"
    rest = tuple(m for m in parent.mounts if m.path != mount.path and not m.path.startswith(below))
    return parent.with_(mounts=(*rest, mount))


@field("Container", "withMountedDirectory")
def with_mounted_directory(ctx: Call, parent: Container, args: Args) -> Container:
    source = args["source"]
    path = path_of(parent, args)
    return mounted(
        parent,
        TreeMount(path, source.fs, source.path, False, args["readOnly"], args["owner"] or "", source.shown),
    )


@field("Container", "withMountedFile")
def with_mounted_file(ctx: Call, parent: Container, args: Args) -> Container:
    source = args["source"]
    path = path_of(parent, args)
    return mounted(parent, TreeMount(path, source.fs, source.path, True, False, args["owner"] or "", source.shown))


@field("Container", "withMountedCache")
def with_mounted_cache(ctx: Call, parent: Container, args: Args) -> Container:
    volume = args["cache"]
    sharing = args["sharing"] if "sharing" in ctx.node.given else volume.sharing
    owner = args["owner"] or volume.owner
    return mounted(parent, CacheMount(path_of(parent, args), volume, args["source"], sharing, owner))


@field("Container", "withMountedTemp")
def with_mounted_temp(ctx: Call, parent: Container, args: Args) -> Container:
    return mounted(parent, TempMount(path_of(parent, args), args["size"] or None))


@field("Container", "withMountedSecret")
def with_mounted_secret(ctx: Call, parent: Container, args: Args) -> Container:
    mode = 0o400 if args["mode"] is None else args["mode"]
    return mounted(parent, SecretMount(path_of(parent, args), args["source"], args["owner"] or "", mode))


@field("Container", "withoutMount")
def without_mount(ctx: Call, parent: Container, args: Args) -> Container:
    path = path_of(parent, args)
    return parent.with_(mounts=tuple(m for m in parent.mounts if m.path != path))


@field("Container", "mounts")
def mounts(ctx: Call, parent: Container, args: Args) -> list[str]:
    return [m.path for m in parent.mounts if not isinstance(m, SecretMount)]


@field("Container", "withUnixSocket")
def with_unix_socket(ctx: Call, parent: Container, args: Args) -> Container:
    raise Unsupported("Unix sockets", "Run it there: 'dagger call ...'.")


@field("Container", "withoutUnixSocket")
def without_unix_socket(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_()


def inside(parent: Container, path: str) -> TreeMount | None:
    """The mounted tree that a path lies in, where what is done to it goes into the mount."""
    mount = parent.mount_at(path)
    if mount is None or isinstance(mount, SecretMount):
        return None
    if not isinstance(mount, TreeMount):
        kind = "cache" if isinstance(mount, CacheMount) else "tmpfs"
        raise FieldError(f"{path}: cannot retrieve path from {kind}", lazy=True)
    return mount


def relative(mount: TreeMount, path: str) -> str:
    """A container's path as the mounted tree has it."""
    rest = path[len(mount.path.rstrip("/")) :].lstrip("/")
    return posixpath.join(mount.source_path, rest) if rest else mount.source_path
