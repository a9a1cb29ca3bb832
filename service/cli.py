"""The service's commands: `serve`, `chat`, `keys`, `runs`. Imports little, so that help comes at once."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from service.errors import StartupError

app = typer.Typer(help="The agent server.", no_args_is_help=True, add_completion=False)


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what is wrong and leave."""
    print(message, file=sys.stderr)
    raise typer.Exit(status)


@app.callback()
def root() -> None:
    """The agent server."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [AGENT_LOOP_HOST, 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [AGENT_LOOP_PORT, 8000].")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes [AGENT_LOOP_WORKERS, 1].")] = None,
    reload: Annotated[bool, typer.Option(help="Start again when a source file changes.")] = False,
) -> None:
    """Serve the API and the page until SIGTERM, then let live runs end (exit status 0)."""
    from service import settings as configuration

    # Worker processes read the environment, so what the command line says goes there.
    for name, value in (("HOST", host), ("PORT", port), ("WORKERS", workers)):
        if value is not None:
            os.environ[configuration.PREFIX + name] = str(value)
    try:
        settings = configuration.load()
        _check(settings)
    except StartupError as error:
        fail(str(error))
    from service.telemetry import multiprocess

    if settings.workers > 1 or multiprocess.VARIABLE in os.environ:
        multiprocess.prepare()
    import uvicorn

    # uvicorn repeats the signal after a clean end, for the handler that was there before: this one.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        uvicorn.run(
            "service.asgi:create",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            reload=reload,
            reload_dirs=["service"] if reload else None,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.drain_seconds) + 10,
            timeout_worker_healthcheck=60,  # a starting worker on a busy machine is not a hung one
            h11_max_incomplete_event_size=64 * 1024,
        )
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _check(settings: object) -> None:
    """What must hold before anything listens. Raises StartupError."""
    import asyncio

    from service import auth
    from service.settings import Settings
    from service.telemetry import logs

    assert isinstance(settings, Settings)
    logs.configure(settings.log_level, settings.log_format, capture_content=settings.capture_content)
    asyncio.run(auth.check_before_start(settings))


if __name__ == "__main__":
    app()
