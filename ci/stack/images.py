"""Our images, built by the pipelines, loaded into the engine and recorded by digest in `images.env`.

Compose starts `name@sha256:…` of a loaded, never pushed image when the engine has the containerd image store and the
pull policy is never (docs/adr records the trial), so what runs is what was built, to the byte.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ci.stack.errors import BuildFailed
from ci.stack.project import ROOT


@dataclass(frozen=True)
class Image:
    """An image of ours: the variable compose reads, the name it is loaded under, the call that builds it."""

    variable: str
    name: str
    call: tuple[str, ...]

    @property
    def tag(self) -> str:
        """What it is loaded under, until the next build."""
        return f"{self.name}:local"


RUNTIME = Image("AGENT_LOOP_IMAGE_RUNTIME", "agent-loop/runtime", ("build-runtime",))
DEV = Image("AGENT_LOOP_IMAGE_DEV", "agent-loop/dev", ("build-dev",))
TRAINING = Image("AGENT_LOOP_IMAGE_TRAINING", "agent-loop/training", ("build-training", "--tools"))
OPS = Image("AGENT_LOOP_IMAGE_OPS", "agent-loop/ops", ("build-ops",))

OF_MODE = {"dev": (RUNTIME, DEV), "prod": (RUNTIME, OPS), "train": (TRAINING, OPS)}
"""The images of ours that a mode starts."""

Export = Callable[[Mapping[str, Sequence[str]]], None]
"""Builds what the words of `agent-loop call` make, for each tag, and loads it under that tag. Raises BuildFailed."""


def digest(name: str) -> str | None:
    """The loaded image's digest, such as sha256:…, or None when the engine does not hold it."""
    asked = subprocess.run(
        ["docker", "image", "inspect", name, "--format", "{{.Id}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or None


def release() -> list[str]:
    """The module's constructor arguments that put this commit into the labels; none outside a git repository."""
    asked = subprocess.run(
        ["git", "log", "-1", "--format=%H %cI"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    revision, _, created = asked.stdout.strip().partition(" ")
    return ["--revision", revision, "--created", created] if asked.returncode == 0 and created else []


def build(images: Iterable[Image], export: Export) -> dict[str, str]:
    """Build and load each image; return what `images.env` says: variable to `name@digest`.

    Raises BuildFailed with the command that shows the whole output again.
    """
    images = list(images)
    export(lines(images))
    return {image.variable: kept(image) for image in images}


def lines(images: Iterable[Image]) -> dict[str, list[str]]:
    """The words that make each image, with this commit in its labels, by the tag it is loaded under."""
    made = release()
    return {image.tag: [*made, *image.call] for image in images}


def kept(image: Image) -> str:
    """`name@digest` of a loaded image, under a tag of its own too: when `tag` moves on, what ran can still be started.

    Raises BuildFailed when the engine does not hold the image.
    """
    found = digest(image.tag)
    own = f"{image.name}:{(found or '').removeprefix('sha256:')[:12]}"
    tagged = subprocess.run(["docker", "tag", image.tag, own], capture_output=True, text=True, check=False)
    if found is None or tagged.returncode != 0:
        raise BuildFailed(f"The engine does not hold {image.tag} after its build: {tagged.stderr.strip()}")
    return f"{image.name}@{found}"
