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


def apt(container: dagger.Container) -> dagger.Container:
    """Mount apt's downloads and package lists; apt wants them for itself, so builds take turns."""
    locked = CacheSharingMode.LOCKED
    return container.with_mounted_cache("/var/cache/apt", dag.cache_volume(APT), sharing=locked).with_mounted_cache(
        "/var/lib/apt/lists", dag.cache_volume(APT_LISTS), sharing=locked
    )


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
