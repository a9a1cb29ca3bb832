"""Small files in the cache folder: each saves time the next time, none is needed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def keep(path: Path, note: Any) -> None:
    """Write a note as JSON, whole or not at all. A folder that takes none costs the time that it would save."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(note))
        draft.replace(path)
