"""What the commands of this package share: one line an error, an end between two steps, the options of a page."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

P = ParamSpec("P")

Port = Annotated[int, typer.Option(help="where /metrics and /health are served", min=0, max=65535)]
Host = Annotated[str, typer.Option(help="address to listen on", envvar="AGENT_LOOP_LISTEN")]
ALL = "0.0.0.0"  # noqa: S104 - inside a container; the compose files decide what is published


def say(line: str) -> None:
    """One line for the person."""
    print(line, file=sys.stderr, flush=True)


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turn this package's errors into one line and their exit status."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        from observability.backup.errors import BackupError
        from observability.drift.errors import DriftError
        from observability.nginx.render import ProxyError
        from observability.slo import SloError

        try:
            command(*args, **kwargs)
        except (BackupError, DriftError, ProxyError, SloError) as error:
            say(f"agent-loop: {error}")
            raise typer.Exit(getattr(error, "exit_status", 2)) from error
        except OSError as error:
            say(f"agent-loop: {error}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error

    return wrapped


@contextmanager
def until_told() -> Generator[threading.Event]:
    """An event that SIGTERM and SIGINT set, so that a job ends between two steps."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        format='{"time":"%(asctime)s","level":"%(levelname)s","service":"%(name)s","message":"%(message)s"}',
    )
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def store_address(given: str | None) -> str | None:
    """The run store's address: as given, or in the file that the service's own variable names; None without either.

    Raises OSError for a file that cannot be read.
    """
    file = os.environ.get("AGENT_LOOP_DATABASE_URL_FILE")
    return given or (Path(file).read_text().strip() if file else None) or None


def utc_now() -> datetime:
    """The present time in UTC."""
    return datetime.now(UTC)
