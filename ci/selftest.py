"""`agent-loop self-test [fast|lint|slow]`: the project's own checks, in the order that fails soonest.

Without an argument: lint and types, then every test but the slow ones, with the container engine, the base images
and the servers that the tests start set up first. `fast` needs no container and starts nothing that takes seconds;
`slow` runs only the slow tests.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"

LINT = [
    [str(BIN / "ruff"), "check"],
    [str(BIN / "ruff"), "format", "--check"],
    [str(BIN / "pyright")],
]
SETUP = [str(BIN / "agent-loop"), "setup", "--tests"]


def pytest(markers: str, *more: str) -> list[str]:
    """The pytest command line for a marker expression."""
    return [str(BIN / "python"), "-m", "pytest", "-q", "--durations=15", "-m", markers, *more]


def steps(mode: str) -> list[list[str]] | None:
    """The commands of a mode in order, or None when there is no such mode."""
    return {
        "lint": LINT,
        "fast": [*LINT, pytest("not containers and not slow and not long and not gpu")],
        "": [*LINT, SETUP, pytest("not slow and not gpu")],
        "slow": [SETUP, pytest("slow and not gpu")],
    }.get(mode)


def main(argv: Sequence[str]) -> int:
    """Run the steps of a mode until one fails. Exit status: the failing step's, 0, or 2 for an unknown mode."""
    chosen = steps(argv[0] if argv else "") if len(argv) < 2 else None
    if chosen is None:
        print(
            f"agent-loop self-test: unknown '{' '.join(argv)}'. Use nothing, fast, lint or slow.",
            file=sys.stderr,
        )
        return 2
    started = time.monotonic()
    for command in chosen:
        words = command[1:] if command[0].endswith("python") else command
        print(f"==> {' '.join(w.removeprefix(f'{BIN}/') for w in words)}", flush=True)
        try:
            code = subprocess.run(command, cwd=ROOT).returncode
        except KeyboardInterrupt:
            return 130
        if code != 0:
            return code
    print(f"==> done in {time.monotonic() - started:.0f} s", flush=True)
    return 0
