"""`python -m trainer COMMAND`: the trainer's commands, and those of export and deployment, without the rest."""

from __future__ import annotations

import importlib
import sys

ELSEWHERE = {
    "export": "trainer.export.cli",
    "deploy": "trainer.deploy",
    "models": "trainer.registry",
    "demo-model": "trainer.export.cli",
}
"""Commands that live in a Typer application of their own."""


def main() -> None:
    """Import the one application that the first word needs, and run it."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    module = importlib.import_module(ELSEWHERE.get(word, "trainer.cli"))
    module.app(prog_name="python -m trainer")


if __name__ == "__main__":
    main()
