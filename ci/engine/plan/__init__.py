"""`agent-loop plan`, `policy` and `dockerfile`: what a function would build, told without building it.

`planner` runs the function in a session that notes what it is asked; `graph` and `text` show that, `policy` checks it
with the `rules` that `settings` choose.
"""

from __future__ import annotations

from collections.abc import Sequence


def show(argv: Sequence[str]) -> int:
    """`agent-loop plan`: see `cli.plan`."""
    return _command("plan", argv)


def check(argv: Sequence[str]) -> int:
    """`agent-loop policy`: see `cli.policy`."""
    return _command("policy", argv)


def eject(argv: Sequence[str]) -> int:
    """`agent-loop dockerfile`: see `cli.dockerfile`."""
    return _command("dockerfile", argv)


def _command(name: str, argv: Sequence[str]) -> int:
    from ci.engine.module.process import ahead

    ahead(argv)
    from .cli import app

    return int(app([name, *argv], prog_name="agent-loop", standalone_mode=True) or 0)
