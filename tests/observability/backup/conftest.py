"""What backups are made of in these tests: two run folders, and an empty repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from observability.backup.repository import Repository


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Two run folders as the trainer leaves them, with one checkpoint in the making."""
    root = tmp_path / "checkpoints"
    for run, step in (("a", 10), ("a", 20), ("b", 5)):
        folder = root / run / "checkpoints" / f"step-{step:07}"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(f"{run}{step}".encode() * 5000)
        (folder / "manifest.json").write_text("{}")
    (root / "a" / "checkpoints" / "latest").symlink_to("step-0000020")
    (root / "a" / "checkpoints" / ".unfinished-step-0000030-1").mkdir()
    (root / "a" / "checkpoints" / ".unfinished-step-0000030-1" / "half").write_text("half")
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty one."""
    return Repository(tmp_path / "backups")
