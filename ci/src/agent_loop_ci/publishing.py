"""The system's images by name, and how one gets to a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dagger

from agent_loop_ci import stages
from agent_loop_ci.errors import BadArgument
from agent_loop_ci.labels import Release

IMAGES: dict[str, Callable[[dagger.Directory, Release], dagger.Container]] = {
    "runtime": stages.runtime,
    "dev": stages.dev,
    "ops": stages.ops,
    "training": stages.training,
}
"""What the system runs, by short name."""

PORTABLE = {"runtime": stages.runtime, "ops": stages.ops}
"""Images that are made of copies only, so that any platform's can be built anywhere."""


@dataclass(frozen=True)
class Target:
    """Where an image goes, and who brings it."""

    address: str
    username: str = ""
    password: dagger.Secret | None = None


def images(source: dagger.Directory, release: Release, names: list[str] | None) -> dict[str, dagger.Container]:
    """The images of these names, or all. Raises BadArgument for a name there is not."""
    for name in names or []:
        if name not in IMAGES:
            raise BadArgument(f"No image is called '{name}'. There are: {', '.join(IMAGES)}.")
    return {name: IMAGES[name](source, release) for name in names or IMAGES}


async def publish(
    source: dagger.Directory,
    release: Release,
    name: str,
    platforms: tuple[dagger.Platform, ...],
    target: Target,
) -> str:
    """Push image `name` for `platforms` (none: the engine's own); return the reference with its digest."""
    if platforms and name not in PORTABLE:
        raise BadArgument(
            f"Image '{name}' is built for the engine's own platform only. Leave --platforms out, or use "
            f"{' or '.join(PORTABLE)}."
        )
    if platforms:
        variants = [PORTABLE[name](source, release, platform=platform) for platform in platforms]
    else:
        variants = [images(source, release, [name])[name]]
    first = variants[0]
    if target.password is not None:
        first = first.with_registry_auth(target.address, target.username, target.password)
    return await first.publish(target.address, platform_variants=variants[1:])
