"""What the module's functions described, kept on disk by all that a description follows from.

A function that makes an image describes it: which files are copied onto which base, which steps run. The description is
the same while the module, the engine, dagger and the call's words are. What it amounts to now (sources, requirements,
bases, what is built already) the engine finds out each time, so a kept description never makes a stale image; it saves
importing dagger and running the module. `tests/stack/test_pipelines.py` holds our functions to describing alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.stack.project import ROOT

if TYPE_CHECKING:
    from ci.engine.graph import Node

KEPT = 16
ENGINE = ROOT / "ci" / "engine"


class Descriptions:
    """The descriptions of one module's images on this machine."""

    def __init__(self, folder: Path, source: str) -> None:
        """Kept in `folder`; `source` stands for the module's code, its place, dagger's version and Python's."""
        self._path = folder / "descriptions.json"
        engine = hashlib.sha256(source.encode())
        for path in sorted(ENGINE.rglob("*.py")):
            engine.update(f"\0{path.relative_to(ENGINE)}\0".encode())
            engine.update(path.read_bytes())
        self._base = engine.hexdigest()

    @classmethod
    def of_this_repository(cls) -> Descriptions:
        """Of the module in this repository, in the engine's cache folder. Raises CallError where it is none."""
        from ci.engine.module.source import find, fingerprint
        from ci.engine.schema import cache_folder

        source = find(str(ROOT))
        return cls(cache_folder(), f"{fingerprint(source)} {source.context}")

    def find(self, words: Sequence[str]) -> Node | None:
        """What these words made the last time, or None where that is not known."""
        from ci.engine.graph import revive

        kept = self._read().get(self._key(words))
        try:
            return revive(kept) if kept else None
        except (KeyError, TypeError, ValueError):
            return None

    def keep(self, words: Sequence[str], node: Node) -> None:
        """Note what these words made."""
        from ci.engine import notes
        from ci.engine.graph import dump

        kept = self._read()
        key = self._key(words)
        kept.pop(key, None)
        kept[key] = dump(node)
        notes.keep(self._path, dict(list(kept.items())[-KEPT:]))

    def _key(self, words: Sequence[str]) -> str:
        return hashlib.sha256(json.dumps([self._base, *words]).encode()).hexdigest()

    def _read(self) -> dict[str, Any]:
        try:
            found: Any = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
