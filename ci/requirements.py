"""The hash-locked requirement sets in `requirements/`, one a purpose, and the command that refreshes them.

Each set is compiled by uv from pyproject.toml for every platform and Python at once, with a hash for every file and
no index address, so that the same file installs on the host, in an image and behind a mirror.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"
"""uv as bootstrap installed it, whether or not the virtual environment is on PATH."""

SETS: dict[str, list[str]] = {
    "host": ["--extra=ci", "--extra=service"],
    "service": ["--extra=service"],
    "trainer": ["--extra=trainer"],
    "tracking": ["--extra=trainer", "--extra=wandb", "--extra=jupyter"],
    "ops": ["--extra=ops"],
    "test": ["--extra=ci", "--extra=service", "--extra=ops", "--group=test"],
    "dev": ["--extra=ci", "--extra=service", "--extra=trainer", "--extra=ops", "--group=dev"],
    "parity": ["--extra=trainer", "--group=parity"],
    "uv": ["requirements/uv.in"],
}
"""What each set holds: options of `uv pip compile` on pyproject.toml, or a file of its own."""


def command(name: str, upgrade: bool) -> list[str]:
    """The uv command line that writes the set `name`; the dev set constrains all others to one version each."""
    constraint = [] if name in ("dev", "uv") else ["--constraint=requirements/dev.txt"]
    return [
        str(UV),
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--python-version=3.11",
        *(["--upgrade"] if upgrade else []),
        *constraint,
        f"--output-file=requirements/{name}.txt",
        *SETS[name],
        *([] if name == "uv" else ["pyproject.toml"]),
    ]


def main(argv: Sequence[str]) -> int:
    """`agent-loop lock [--upgrade]`: write every set. Exit 1 when uv is missing or a set has no solution."""
    unknown = [word for word in argv if word != "--upgrade"]
    if unknown:
        print(f"agent-loop lock: unknown argument '{unknown[0]}'. It takes only --upgrade.", file=sys.stderr)
        return 2
    if not UV.is_file():
        print(f"agent-loop lock: no {UV}. 'make dev' installs it.", file=sys.stderr)
        return 1
    for name in ["dev", *(n for n in SETS if n != "dev")]:
        print(f"requirements/{name}.txt", flush=True)
        if subprocess.run(command(name, "--upgrade" in argv and name == "dev"), cwd=ROOT).returncode != 0:
            return 1
    return 0
