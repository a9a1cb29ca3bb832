"""Cache volumes: what a build fetches once and no image holds. Every stage is right with all of them empty."""

from __future__ import annotations

import dagger
from dagger import CacheSharingMode, dag

UV = "agent-loop-uv"
APT = "agent-loop-apt"
APT_LISTS = "agent-loop-apt-lists"
GO = "agent-loop-go"
HUGGING_FACE = "agent-loop-huggingface"
CHECKPOINTS = "agent-loop-checkpoints"


def uv(container: dagger.Container) -> dagger.Container:
    """Mount uv's cache at /root/.cache/uv. uv locks it itself, so builds share it."""
    return container.with_mounted_cache("/root/.cache/uv", dag.cache_volume(UV))


APT_FOLDERS = {"/var/cache/apt": APT, "/var/lib/apt/lists": APT_LISTS}


def apt(container: dagger.Container) -> dagger.Container:
    """Mount apt's downloads and package lists; apt wants them for itself, so builds take turns."""
    for path, name in APT_FOLDERS.items():
        container = container.with_mounted_cache(path, dag.cache_volume(name), sharing=CacheSharingMode.LOCKED)
    return container


def without_apt(container: dagger.Container) -> dagger.Container:
    """Take them off again: every later step would hold them too, and make all other builds wait for it."""
    for path in APT_FOLDERS:
        container = container.without_mount(path)
    return container


def go(container: dagger.Container) -> dagger.Container:
    """Mount Go's modules and build results at /root/go and /root/.cache/go-build."""
    return container.with_mounted_cache("/root/go", dag.cache_volume(f"{GO}-modules")).with_mounted_cache(
        "/root/.cache/go-build", dag.cache_volume(f"{GO}-build")
    )


def hugging_face(container: dagger.Container, owner: str) -> dagger.Container:
    """Mount the hub's cache of models and data sets at /models."""
    return container.with_mounted_cache("/models", dag.cache_volume(HUGGING_FACE), owner=owner)


def checkpoints(container: dagger.Container, owner: str) -> dagger.Container:
    """Mount the checkpoints of every run at /checkpoints, a folder a run; one training at a time."""
    return container.with_mounted_cache(
        "/checkpoints", dag.cache_volume(CHECKPOINTS), owner=owner, sharing=CacheSharingMode.LOCKED
    )
