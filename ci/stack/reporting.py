"""How the wrapper's commands speak: lines for the person on standard error, one line and a status for a problem."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from ci.stack.errors import Interrupted, NotReady, StackError
from ci.stack.project import state_place

P = ParamSpec("P")


def say(line: str) -> None:
    """One line for the person, on standard error: standard output is for answers."""
    print(line, file=sys.stderr, flush=True)


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turn a StackError, or a disk that refuses, into its one line and its exit status."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StackError as error:
            say(f"agent-loop: {error}")
            raise typer.Exit(error.exit_status) from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            fix = "Free space there, and run it again." if full else "See to it, and run it again."
            # A write that fails does not say where; what the wrapper writes lies in one folder.
            say(f"agent-loop: {error.strerror or error}, {error.filename or state_place()}. {fix}")
            raise typer.Exit(NotReady.exit_status if full else StackError.exit_status) from error
        except KeyboardInterrupt as error:
            say("agent-loop: interrupted; the same command goes on from here")
            raise typer.Exit(Interrupted.exit_status) from error

    return wrapped
