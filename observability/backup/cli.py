"""`python -m observability backup`: create, list, verify, restore, and the hourly loop."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from observability.command import ALL, Host, Port, reported, say, store_address, until_told, utc_now

if TYPE_CHECKING:
    from observability.backup.sources import Places

backup = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Back up checkpoints and the service's data; verify and restore.",
)

What = Annotated[str, typer.Option(help="checkpoints, service or all")]
Backups = Annotated[Path, typer.Option(help="where backups are kept", envvar="AGENT_LOOP_BACKUPS")]
Checkpoints = Annotated[Path | None, typer.Option(help="the trainer's run folders", envvar="AGENT_LOOP_RUNS")]
Data = Annotated[Path | None, typer.Option(help="the service's data folder", envvar="AGENT_LOOP_DATA_DIR")]
Grafana = Annotated[Path | None, typer.Option(help="Grafana's data folder", envvar="AGENT_LOOP_GRAFANA_DATA")]
Ollama = Annotated[str | None, typer.Option(help="Ollama's address, for its list of models", envvar="OLLAMA_URL")]
Database = Annotated[
    str | None,
    typer.Option(
        help="the run store's address where it is PostgreSQL; or a file: AGENT_LOOP_DATABASE_URL_FILE",
        envvar="AGENT_LOOP_DATABASE_URL",
    ),
]
KEPT = Path("/backups")


def _default(folder: Path | None, usual: str) -> Path | None:
    """The given folder, or where the images mount it when that is there."""
    return folder or (Path(usual) if Path(usual).is_dir() else None)


def _places(
    checkpoints: Path | None, data: Path | None, grafana: Path | None, ollama: str | None, store: str | None
) -> Places:
    from observability.backup.postgres import database
    from observability.backup.sources import Places

    return Places(
        _default(checkpoints, "/checkpoints"),
        _default(data, "/data"),
        _default(grafana, "/grafana"),
        ollama,
        database(store_address(store)),
    )


@backup.command()
@reported
def create(
    what: What = "all",
    backups: Backups = KEPT,
    checkpoints: Checkpoints = None,
    data: Data = None,
    grafana: Grafana = None,
    ollama: Ollama = None,
    database: Database = None,
) -> None:
    """Back up now, and verify what was written."""
    from observability.backup.repository import Repository
    from observability.backup.schedule import make
    from observability.backup.sources import chosen

    places = _places(checkpoints, data, grafana, ollama, database)
    repository = Repository(backups)
    for one in chosen(what):
        snapshot = make(repository, one, places, utc_now())
        repository.prune(one)
        print(f"{snapshot.id}  {len(snapshot.entries)} files, {_size(snapshot.size)}")


@backup.command("list")
@reported
def list_(what: What = "all", backups: Backups = KEPT) -> None:
    """List what is kept, newest first."""
    from observability.backup.repository import Repository
    from observability.backup.sources import chosen

    repository = Repository(backups)
    kinds = chosen(what)
    shown = [snapshot for snapshot in repository.snapshots() if snapshot.what in kinds]
    for snapshot in shown:
        print(
            f"{snapshot.id:<34} {_age(snapshot.time):>8}  {len(snapshot.entries):>6} files  {_size(snapshot.size):>9}"
        )
    if not shown:
        say(f"No backups, {backups}. Make one with 'backup create'.")
    for problem in repository.unreadable():
        say(problem)


@backup.command()
@reported
def verify(
    name: Annotated[str, typer.Argument(help="a backup's id; all of them without one")] = "",
    what: What = "all",
    backups: Backups = KEPT,
) -> None:
    """Read backups again and compare each content with its checksum. Exit status 3 when one is damaged."""
    from observability.backup.errors import Damaged
    from observability.backup.repository import Repository
    from observability.backup.sources import chosen

    repository = Repository(backups)
    kinds = chosen(what)
    wanted = [repository.find(name)] if name else [s for s in repository.snapshots() if s.what in kinds]
    problems = [] if name else repository.unreadable()
    for snapshot in wanted:
        found = repository.verify(snapshot)
        print(f"{snapshot.id}  {'damaged' if found else 'whole'}")
        problems += found
    for problem in problems:
        say(problem)
    if problems:
        raise Damaged(f"{len(problems)} problems in {backups}. Restore only from backups that are whole.")


@backup.command()
@reported
def restore(
    name: Annotated[str, typer.Argument(help="a backup's id, or latest")] = "latest",
    what: What = "all",
    to: Annotated[Path | None, typer.Option(help="put it below this folder instead of where it came from")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    backups: Backups = KEPT,
    database: Database = None,
) -> None:
    """Put a backup back. What is in the way is moved to .before-restore-TIME beside it, never deleted.

    A PostgreSQL run store goes into an empty schema; what was there is kept in the schema before_restore_TIME. Stop
    what writes there first (`agent-loop backup restore` does).
    """
    from observability.backup import postgres
    from observability.backup.repository import Repository
    from observability.backup.restore import restore as put_back
    from observability.backup.restore import restore_database
    from observability.backup.sources import chosen

    store = postgres.database(store_address(database))

    repository = Repository(backups)
    for one in chosen(what) if name == "latest" else ("",):
        snapshot = repository.find(name, one or None)
        dumped = any(entry.path == postgres.ENTRY for entry in snapshot.entries)
        into = store if dumped and to is None else None
        if dumped and to is None and into is None:
            raise postgres.DatabaseUnusable(
                f"The run store of {snapshot.id} is PostgreSQL's. Name the database with --database, or --to a FOLDER."
            )
        names = {entry.path.split("/", 1)[0] for entry in snapshot.entries}
        names &= {*snapshot.roots, *(["database"] if to else [])}
        targets = {root: to / root if to else Path(snapshot.roots[root]) for root in sorted(names)}
        places = ", ".join(map(str, [*targets.values(), *([into.address] if into else [])]))
        if not yes and not typer.confirm(f"Restore {snapshot.id} to {places}?", err=True):
            raise typer.Exit(1)
        if into is not None:
            aside = restore_database(repository, snapshot, into, now=utc_now())
            kept = f"what was there is in its schema {aside}" if aside else "it was empty"
            print(f"{snapshot.id} -> {into.address}: {kept}")
        put = put_back(repository, snapshot, targets, now=utc_now())
        for root, entries in put.items():
            print(f"{snapshot.id} -> {targets[root]}: {', '.join(entries) or 'nothing'}")


@backup.command()
@reported
def loop(
    what: What = "all",
    backups: Backups = KEPT,
    checkpoints: Checkpoints = None,
    data: Data = None,
    grafana: Grafana = None,
    ollama: Ollama = None,
    database: Database = None,
    port: Port = 9108,
    host: Host = ALL,
) -> None:
    """Back up every hour, verify, keep 24 hourly and 7 daily ones; show the metrics."""
    from prometheus_client import CollectorRegistry

    from observability.backup.repository import Repository
    from observability.backup.schedule import Schedule
    from observability.backup.sources import chosen
    from observability.exposition import Page

    places = _places(checkpoints, data, grafana, ollama, database)
    registry = CollectorRegistry()
    schedule = Schedule(Repository(backups), chosen(what), places, registry)
    page = Page(registry, port=port, host=host)
    with until_told() as stop:
        page.start()
        say(f"Backups of {what} to {backups} each hour, metrics on port {page.port}")
        schedule.run(stop)
        page.close()


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _age(time: datetime) -> str:
    seconds = max(0.0, (datetime.now(UTC) - time).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
