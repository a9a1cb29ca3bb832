"""`python -m observability drift`: run, report, serve."""

from __future__ import annotations

import typer

drift = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Compare recent runs with a reference.")


@drift.callback()
def _group() -> None:
    return
