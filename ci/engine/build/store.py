"""What was exported into Docker's image store, so that nothing is exported twice.

A note of some hundred bytes per name, never a layer: what the image was made from, the digest that it got, and which
layer became which when it was dated. It counts only while the store holds that digest under that name.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.engine.errors import BuildFailed
from ci.engine.notes import keep
from ci.engine.schema import cache_folder

from .times import Layer

if TYPE_CHECKING:
    from .buildkit import BuildKit

FORMAT = 2
"""Changes when equal inputs give another image, or the notes another shape."""
REMEMBERED = 200
_NOTING = threading.Lock()


@dataclass(frozen=True)
class Exported:
    """An image in the store."""

    made_from: str
    """What its bytes follow from."""
    digest: str
    latest: int
    """The time (Unix seconds) that nothing in it is newer than."""
    layers: Mapping[str, Layer]
    """Its layers by the digests that they had before they were dated."""

    @classmethod
    def of(cls, inputs: str, digest: str, latest: int, layers: Mapping[str, Layer]) -> Exported:
        kept = {before: Layer(layer.digest, layer.size) for before, layer in layers.items()}
        return cls(fingerprint(inputs), digest, latest, kept)


def fingerprint(inputs: str) -> str:
    """Stands for everything that an image is made from."""
    return hashlib.sha256(inputs.encode()).hexdigest()


class Exports:
    """The notes, and the store that they are about."""

    def __init__(self, buildkit: BuildKit) -> None:
        self._buildkit = buildkit

    def digest(self, name: str) -> str:
        """The digest that a name has in Docker's store; empty where it has none."""
        try:
            return self._buildkit.docker("image", "inspect", "--format", "{{.Id}}", name).decode().strip()
        except BuildFailed:
            return ""

    def noted(self, name: str) -> Exported | None:
        """What was exported under a name; whether the store still has it is for `digest` to say."""
        found = _read().get(name)
        try:
            made_from, digest, latest, layers = found  # type: ignore[misc]
            return Exported(made_from, digest, latest, {k: Layer(*v) for k, v in layers.items()})
        except (TypeError, ValueError, AttributeError):
            return None

    def note(self, name: str, exported: Exported) -> None:
        """Remember an export. Two images of a session may be noted at the same moment."""
        layers = {before: [layer.digest, layer.size] for before, layer in exported.layers.items()}
        with _NOTING:
            notes = _read()
            notes.pop(name, None)
            notes[name] = [exported.made_from, exported.digest, exported.latest, layers]
            keep(_path(), {"format": FORMAT, "images": dict(list(notes.items())[-REMEMBERED:])})


def _path() -> Path:
    return cache_folder() / "exports.json"


def _read() -> dict[str, Any]:
    try:
        found = json.loads(_path().read_text())
        return dict(found["images"]) if found["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
