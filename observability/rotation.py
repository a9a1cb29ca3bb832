"""A file of lines that rotates by size: `name.jsonl`, then `name.jsonl.1`, `.2`, … oldest last."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO


class RotatingLines:
    """Appends lines, each flushed, so that a reader (and a crash) sees whole lines only.

    `limit` is the size in bytes at which a new file begins, `keep` how many old ones stay.
    """

    def __init__(self, path: Path, *, limit: int = 10 * 1024 * 1024, keep: int = 5) -> None:
        self.path = path
        self._limit = limit
        self._keep = keep
        self._file: TextIO | None = None

    def write(self, line: str) -> None:
        """Append `line` and a newline; raises OSError where the disk does."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        if self._file.tell() and self._file.tell() + len(line.encode()) + 1 > self._limit:
            self._rotate()
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
            if newer.exists():
                newer.replace(older)
        self._file = self.path.open("a", encoding="utf-8")
