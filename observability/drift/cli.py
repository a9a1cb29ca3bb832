"""`python -m observability drift`: run, report, serve."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from observability.command import ALL, Host, Port, reported, say, store_address, until_told

if TYPE_CHECKING:
    from observability.drift.probe import Prober

drift = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Compare recent runs with a reference.")

Where = Annotated[
    str,
    typer.Option(
        help="SQLite file, database URL or JSONL with the runs' feature rows; default: the service's own store",
        envvar="AGENT_LOOP_ROWS",
    ),
]
State = Annotated[Path, typer.Option(help="reference and reports are kept here", envvar="AGENT_LOOP_DRIFT")]
Window = Annotated[float, typer.Option(help="hours that count as recent", min=0.01)]
Variant = Annotated[str | None, typer.Option(help="only runs of this variant")]
Url = Annotated[str, typer.Option(help="the service, for fixed prompts; empty sends none", envvar="AGENT_LOOP_URL")]
Key = Annotated[Path | None, typer.Option(help="file with the API key", envvar="AGENT_LOOP_API_KEY_FILE")]
Model = Annotated[str | None, typer.Option(help="the model to ask; the first that is served without it")]
STORE, STATE = "/data/runs.db", Path("/drift")
SECRET = Path("/run/secrets/api_key")


def _rows(given: str) -> str:
    """As given, else the service's own store where that is PostgreSQL, else the file of the usual place."""
    return given or store_address(os.environ.get("AGENT_LOOP_DATABASE_URL")) or STORE


def _prober(url: str, key_file: Path | None, model: str | None) -> Prober | None:
    from observability.drift.probe import Prober

    if not url:
        return None
    file = key_file or (SECRET if SECRET.exists() else None)
    return Prober(url, file.read_text().strip() if file else None, model)


@drift.command()
@reported
def run(
    rows: Where = "",
    state: State = STATE,
    window_hours: Window = 24,
    variant: Variant = None,
    url: Url = "",
    api_key_file: Key = None,
    model: Model = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="make the present runs and answers the reference")] = False,
) -> None:
    """Compare once, write the report, print the verdict."""
    import time

    from observability.drift import job

    settings = job.Settings(_rows(rows), state, window_hours, variant)
    prober = _prober(url, api_key_file, model)
    try:
        job.run(settings, prober, now=time.time(), freeze=freeze)
    finally:
        if prober is not None:
            prober.close()
    report(state)


@drift.command()
@reported
def report(state: State = STATE) -> None:
    """Print the last verdict and where its report lies."""
    import json

    from observability.drift.errors import NoReference

    last = state / "last.json"
    if not last.exists():
        raise NoReference(f"No drift run yet, {state}. Make one with 'drift run'.")
    found = json.loads(last.read_text())
    print(f"{found['verdict']}: {found['window_rows']} runs against {found['reference_rows']}, {found['at']}")
    for name, feature in found["features"].items():
        if feature["level"]:
            print(f"  {name}: {('', 'watch', 'drifted')[feature['level']]} (corrected p {feature['q']:.2g})")
    if found["probes_changed"]:
        print(f"  fixed prompts answered otherwise: {', '.join(found['probes_changed'])}")
    if found["probe_problem"]:
        print(f"  {found['probe_problem']}")
    print(f"Report: {state / 'reports' / 'latest.html'}")


@drift.command()
@reported
def serve(
    rows: Where = "",
    state: State = STATE,
    window_hours: Window = 24,
    variant: Variant = None,
    url: Url = "http://agent:8000",
    api_key_file: Key = None,
    model: Model = None,
    tls: Annotated[str, typer.Option(help="HOST:PORT whose certificate is watched", envvar="AGENT_LOOP_TLS")] = "",
    port: Port = 9109,
    host: Host = ALL,
) -> None:
    """Compare every hour, send a prompt every two minutes, show metrics and reports."""
    from prometheus_client import CollectorRegistry

    from observability.drift import job
    from observability.drift.features import safe
    from observability.exposition import Page

    registry = CollectorRegistry()
    name, _, number = tls.partition(":")
    prober = _prober(url, api_key_file, model)
    settings = job.Settings(_rows(rows), state, window_hours, variant)
    service = job.Service(settings, prober, registry, tls=(name, int(number or 443)) if name else None)
    page = Page(registry, port=port, host=host, files=state / "reports")
    with until_told() as stop:
        page.start()
        say(f"Drift of {safe(_rows(rows))} each hour, metrics and reports on port {page.port}")
        service.loop(stop)
        page.close()
    if prober is not None:
        prober.close()
