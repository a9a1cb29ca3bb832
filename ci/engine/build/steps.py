"""What a step leaves behind, and the words of the script that runs it (`execs.py` writes those)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """The outcome of a step, scrubbed of secrets, decoded with U+FFFD for what is no UTF-8."""

    code: int
    stdout: str
    stderr: str
    combined: str
    refused: str = ""
    """Why the command could not be started (code -1)."""
