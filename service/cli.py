"""The service's commands: `serve`, `chat`, `keys`, `runs`. Imports little, so that help comes at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from service.errors import StartupError

if TYPE_CHECKING:
    from service.settings import Settings
    from service.store import Store

app = typer.Typer(help="The agent server.", no_args_is_help=True, add_completion=False)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
runs = typer.Typer(help="Runs of a service.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(runs, name="runs")

T = TypeVar("T")

Url = Annotated[
    str | None,
    typer.Option("--url", help="Address of the service [AGENT_LOOP_URL, http://127.0.0.1:8000]."),
]


@app.callback()
def root() -> None:
    """The agent server."""


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what is wrong and leave."""
    print(message, file=sys.stderr)
    raise typer.Exit(status)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [AGENT_LOOP_HOST, 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [AGENT_LOOP_PORT, 8000].")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes [AGENT_LOOP_WORKERS, 1].")] = None,
    reload: Annotated[bool, typer.Option(help="Start again when a source file changes.")] = False,
) -> None:
    """Serve the API and the page until SIGTERM, then let live runs end (exit status 0)."""
    from service import auth
    from service import settings as configuration

    # Worker processes read the environment, so what the command line says goes there.
    for name, value in (("HOST", host), ("PORT", port), ("WORKERS", workers)):
        if value is not None:
            os.environ[configuration.PREFIX + name] = str(value)
    settings = _settings()
    from service.telemetry import logs, multiprocess

    logs.configure(settings.log_level, settings.log_format, capture_content=settings.capture_content)
    try:
        asyncio.run(auth.check_before_start(settings))
    except StartupError as error:
        fail(str(error))
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
        )
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def chat(
    words: Annotated[list[str] | None, typer.Argument(help="What to say; without it, a conversation.")] = None,
    url: Url = None,
    agent: Annotated[str, typer.Option(help="Name of the agent.")] = "default",
) -> None:
    """Talk to an agent of a running service; its steps and tools show as they happen."""
    from service.terminal import Client, ClientError, converse

    try:
        converse(Client.of(url), agent, " ".join(words) if words else None)
    except ClientError as error:
        fail(str(error), 1)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="chat, runs, admin; default: chat and runs.")] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens a minute.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at a time.")] = None,
) -> None:
    """Make an API key and print it: the only time it can be seen."""
    from service import auth

    scopes = tuple(scope or ("chat", "runs"))
    for each in scopes:
        if each not in auth.SCOPES:
            fail(f"No such scope: {each}. Use {', '.join(auth.SCOPES)}.")
    given = {"rpm": rpm, "tpm": tpm, "concurrency": concurrency}
    limits = {key: value for key, value in given.items() if value is not None}
    text, record = auth.make_key(name[:64], scopes, limits)
    _with_store(lambda store: store.keys.add(record))
    print(text)


@keys.command("list")
def list_keys() -> None:
    """Show every key, without its secret."""
    import time

    for key in _with_store(lambda store: store.keys.all()):
        made = time.strftime("%Y-%m-%d", time.gmtime(key.created_at))
        state = "revoked" if key.revoked_at is not None else "active"
        limits = " ".join(f"{name}={value}" for name, value in key.limits.items())
        print(f"{key.id}  {state:<7}  {made}  {','.join(key.scopes):<16}  {key.name}  {limits}".rstrip())


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="Id of the key, as 'keys list' shows it.")]) -> None:
    """Revoke a key; running services refuse it within seconds."""
    if not _with_store(lambda store: store.keys.revoke(key_id)):
        fail(f"No active key has this id: {key_id}. 'agent-loop keys list' shows them.", 1)
    print(f"Revoked {key_id}.")


@runs.command("list")
def list_runs(url: Url = None, limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20) -> None:
    """Show the newest runs."""
    for run in _ask(url, "GET", f"/v1/runs?limit={limit}")["data"]:
        tokens = run["usage"]["total_tokens"]
        state = run["outcome"] or run["status"]
        print(f"{run['id']}  {state:<14}  {run['steps']:>3} steps  {tokens:>7} tokens  {run['output'][:50]!r}")


@runs.command("show")
def show_run(run_id: Annotated[str, typer.Argument(help="Id of the run.")], url: Url = None) -> None:
    """Print a run as JSON."""
    import json

    print(json.dumps(_ask(url, "GET", f"/v1/runs/{run_id}"), indent=2, ensure_ascii=False))


@runs.command("cancel")
def cancel_run(run_id: Annotated[str, typer.Argument(help="Id of the run.")], url: Url = None) -> None:
    """Cancel a run; one that has ended stays as it ended."""
    run = _ask(url, "POST", f"/v1/runs/{run_id}/cancel")
    print(run["outcome"] or "cancel requested")


def _ask(url: str | None, method: str, path: str) -> Any:
    from service.terminal import Client, ClientError

    try:
        return Client.of(url).ask(method, path)
    except ClientError as error:
        fail(str(error), 1)


def _settings() -> Settings:
    from service import settings as configuration

    try:
        return configuration.load()
    except StartupError as error:
        fail(str(error))


def _with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    from service.errors import ApiError
    from service.store import Store

    settings = _settings()

    async def run() -> T:
        store = await Store.open(settings.database())
        try:
            return await work(store)
        finally:
            await store.aclose()

    try:
        return asyncio.run(run())
    except StartupError as error:
        fail(str(error))
    except ApiError as error:
        fail(error.message, 1)


if __name__ == "__main__":
    app()
