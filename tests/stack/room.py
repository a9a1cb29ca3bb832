"""Whether the container engine has room for what a test builds; a full disk would fail whatever runs beside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

GB = 1_000_000_000


def needed(gigabytes: int, what: str) -> None:
    """Skip the test, saying why, unless so much is free where the engine keeps its data and where builds write."""
    asked = ["docker", "info", "--format", "{{.DockerRootDir}}"]
    root = Path(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "/")
    free = shutil.disk_usage(root if root.exists() else "/").free // GB
    if free < gigabytes:
        pytest.skip(f"{what} takes up to {gigabytes} GB, {free} GB are free in {root}")
