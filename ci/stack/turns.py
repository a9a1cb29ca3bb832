"""One command at a time changes a stack: a second one waits for its turn, says so, and goes on from what it finds.

Two at once would make each secret twice, of which containers and files keep different ones, and record images that the
other has replaced. The state folder itself is locked: nothing has to be written, and the lock ends with its process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def taken(state: Path, say: Callable[[str], None]) -> Generator[None]:
    """Have the stacks of a state folder to oneself inside. Where its file system knows no locks, go on without."""
    folder = os.open(state, os.O_RDONLY)  # not inherited: what a command starts does not hold its turn
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another agent-loop command changes this stack, in {state}; waiting for it. Ctrl-C stops waiting.")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
    finally:
        os.close(folder)
