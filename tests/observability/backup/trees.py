"""How these tests look at folders, at a moment of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from observability.backup import capture
from observability.backup.repository import Repository

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def tree(root: Path) -> dict[str, bytes | str]:
    """Every file's content and every link's target below a folder, without what begins with a dot."""
    found: dict[str, bytes | str] = {}
    for path in capture.walk(root):
        name = path.relative_to(root).as_posix()
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes()
    return found


def flip(repository: Repository) -> Path:
    """Damage one content by one bit, as a disk does."""
    path = sorted((repository.folder / "objects").glob("??/*"))[0]
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    return path
