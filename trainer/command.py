"""What every command of the trainer shares: its options, and errors as one line with an exit status."""

from __future__ import annotations

import errno
import functools
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from .errors import ConfigError, DiskFull, TrainerError

Command = TypeVar("Command", bound=Callable[..., Any])

Output = Annotated[Path, typer.Option("--output", envvar="AGENT_LOOP_RUNS", help="Folder that holds the runs.")]
RunArgument = Annotated[str, typer.Argument(help="A run's folder, or its id in --output; the newest by default.")]
RUNS = Path("runs")
"""Where runs go when neither --output nor AGENT_LOOP_RUNS says."""


def reported(command: Command) -> Command:
    """Turn our errors into their lines and exit statuses (errors.py and export/errors.py list them)."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except TrainerError as error:
            if os.environ.get("AGENT_LOOP_VERBOSE"):
                raise
            typer.echo(str(error), err=True)
            raise typer.Exit(error.exit_code) from None
        except Exception as error:
            if isinstance(error, PermissionError | NotADirectoryError) and error.filename:
                typer.echo(
                    f"Cannot use {error.filename}: {error.strerror}. Give a folder that you may write to (--output).",
                    err=True,
                )
                raise typer.Exit(ConfigError.exit_code) from None
            if not _full(error):
                raise
            where = getattr(error, "filename", None) or kwargs.get("output") or Path.cwd()
            typer.echo(f"Disk full, {where}. Free space and run the same command again; it goes on.", err=True)
            raise typer.Exit(DiskFull.exit_code) from None

    return run  # type: ignore[return-value]


def _full(error: Exception) -> bool:
    """Whether a disk or a quota is full, also where a library says so in an error of its own."""
    said = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return said or os.strerror(errno.ENOSPC) in str(error)


def quieten() -> None:
    """Libraries warn about things that are not the person's to change; errors still show."""
    if not os.environ.get("AGENT_LOOP_VERBOSE"):
        warnings.filterwarnings("ignore")
        for name in ("bitsandbytes", "mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
