"""Ids that outlive their session: a handle that a recent session gave out still loads in the next one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from . import graph
from .graph import Node
from .schema import cache_folder

REMEMBERED_SESSIONS = 8
REMEMBERED_BYTES = 4 * 1024 * 1024


def leave(nodes: Mapping[str, Node]) -> None:
    """Leave ids for a later session; too many are not left at all."""
    if not nodes:
        return
    text = json.dumps({i: graph.dump(n) for i, n in nodes.items()})
    if len(text) > REMEMBERED_BYTES:
        return
    folder = cache_folder() / "ids"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{time.time_ns()}-{os.getpid()}.json"
        path.touch(mode=0o600)
        path.write_text(text)
        for old in sorted(folder.glob("*.json"))[:-REMEMBERED_SESSIONS]:
            old.unlink(missing_ok=True)
    except OSError:
        pass  # then ids end with their session


def remembered() -> dict[str, Any]:
    """What recent sessions left: dumped nodes by id."""
    found: dict[str, Any] = {}
    for path in sorted((cache_folder() / "ids").glob("*.json")):
        try:
            found |= json.loads(path.read_text())
        except (OSError, ValueError):
            continue
    return found
