"""The command line of the checkout under test, as a person would type it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def agent_loop(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `agent-loop WORDS` in the repository, with more environment; its exit status is for the caller to judge."""
    return subprocess.run(
        [sys.executable, "-m", "ci.cli", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
