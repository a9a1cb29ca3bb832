"""How deep a session may follow a chain of fields: by recursion, up to some twenty frames for each of them.

Python's limit holds for the whole process, so it is raised only while a session is open.
"""

from __future__ import annotations

import sys
import threading

MAX_DEPTH = 1000
"""How deep fields may be nested: a pipeline's loop over files or variables makes chains of hundreds."""
FRAMES = 20

_lock = threading.Lock()
_open = 0
_before = 0


def enter() -> None:
    """A session opens."""
    global _open, _before
    with _lock:
        if _open == 0:
            _before = sys.getrecursionlimit()
            sys.setrecursionlimit(max(_before, FRAMES * MAX_DEPTH))
        _open += 1


def leave() -> None:
    """A session closes."""
    global _open
    with _lock:
        _open -= 1
        if _open == 0:
            sys.setrecursionlimit(_before)
