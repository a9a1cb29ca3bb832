"""The folder in which several worker processes share their metrics.

It imports nothing of prometheus_client: that library decides on import, by the environment, whether to share,
so the parent prepares the folder first and starts its workers afterwards.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare(directory: Path | None = None) -> Path:
    """Make the folder, empty it of a former start's files and name it in the environment; returns it.

    Without `directory` it is the one that the environment already names, or a new temporary one. Old files
    must go: their process ids come again, and thousands of them make a scrape slow.
    """
    named = os.environ.get(VARIABLE)
    path = directory or (Path(named) if named else Path(tempfile.mkdtemp(prefix="agent-loop-metrics-")))
    path.mkdir(parents=True, exist_ok=True)
    for stale in path.glob("*.db"):
        stale.unlink(missing_ok=True)
    os.environ[VARIABLE] = str(path)
    return path
