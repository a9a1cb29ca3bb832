"""What was exported into Docker's image store, so that nothing is exported twice.

A note of a few hundred bytes per name, never a layer: what the image was made from and the digest that it got. It
counts only while the store holds that digest under that name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ci.engine.errors import BuildFailed
from ci.engine.schema import cache_folder

if TYPE_CHECKING:
    from .buildkit import BuildKit

FORMAT = 1
"""Changes when equal inputs give another image."""
REMEMBERED = 200


@dataclass(frozen=True)
class Exported:
    """An image in the store: what it was made from (empty: not known), and its digest."""

    made_from: str
    digest: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{FORMAT} {self.made_from}".encode()).hexdigest() if self.made_from else ""


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

    def holds(self, name: str, made_from: str) -> bool:
        """Whether the store has under this name the image that these inputs give."""
        noted = _read().get(name)
        if noted is None or not made_from:
            return False
        fingerprint, digest = noted
        return fingerprint == Exported(made_from, digest).fingerprint and self.digest(name) == digest

    def note(self, name: str, exported: Exported) -> None:
        """Remember an export."""
        notes = _read()
        notes.pop(name, None)
        if exported.fingerprint:
            notes[name] = [exported.fingerprint, exported.digest]
        kept = dict(list(notes.items())[-REMEMBERED:])
        with contextlib.suppress(OSError):  # a read-only home costs an export, nothing else
            path = _path()
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(f".{os.getpid()}")
            scratch.write_text(json.dumps(kept))
            scratch.replace(path)


def _path() -> Path:
    return cache_folder() / "exports.json"


def _read() -> dict[str, list[str]]:
    try:
        found = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
