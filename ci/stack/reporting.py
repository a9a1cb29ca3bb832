"""How the wrapper's commands speak: lines for the person on standard error, one line and a status for a problem."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from ci.stack.errors import Interrupted, StackError

P = ParamSpec("P")


def say(line: str) -> None:
    """One line for the person, on standard error: standard output is for answers."""
    print(line, file=sys.stderr, flush=True)


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turn a StackError into its one line and its exit status."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StackError as error:
            say(f"agent-loop: {error}")
            raise typer.Exit(error.exit_status) from error
        except KeyboardInterrupt as error:
            say("agent-loop: interrupted; the same command goes on from here")
            raise typer.Exit(Interrupted.exit_status) from error

    return wrapped
