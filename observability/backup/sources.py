"""What there is to back up, and where it lies.

checkpoints   the trainer's run folders (with MLflow's database where it lies among them)
service       the run store (SQLite in the data folder, or PostgreSQL), Grafana's database, the list of Ollama's models
all           both
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from observability.backup import postgres
from observability.backup.errors import SourceMissing
from observability.backup.repository import Content

WHATS = ("checkpoints", "service")


@dataclass(frozen=True, slots=True)
class Places:
    """Folders and addresses of this installation; None where it has no such thing."""

    checkpoints: Path | None = None
    data: Path | None = None
    grafana: Path | None = None
    ollama: str | None = None
    database: postgres.Database | None = None
    """The run store, where it is not a file of the data folder."""


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of backup: its folders by name, and contents that come from elsewhere."""

    what: str
    roots: dict[str, Path]
    extra: dict[str, Content]


def chosen(what: str) -> tuple[str, ...]:
    """The kinds that a word on the command line means. Raises SourceMissing for another word."""
    if what == "all":
        return WHATS
    if what not in WHATS:
        raise SourceMissing(f"No such thing to back up, '{what}'. Use checkpoints, service or all.")
    return (what,)


def source(what: str, places: Places) -> Source:
    """The source of one kind. Raises SourceMissing when its main folder is not given."""
    if what == "checkpoints":
        return Source(what, {"checkpoints": _given(places.checkpoints, "--checkpoints")}, {})
    roots = {"data": _given(places.data, "--data")}
    # Grafana is not part of every stack, and its folder is empty until it first ran.
    if places.grafana is not None and places.grafana.is_dir():
        roots["grafana"] = places.grafana
    extra: dict[str, Content] = {"models/models.json": models} if (models := _models(places.ollama)) else {}
    if places.database is not None:
        extra[postgres.ENTRY] = partial(postgres.dump, places.database)
    return Source(what, roots, extra)


def _given(folder: Path | None, option: str) -> Path:
    if folder is None:
        raise SourceMissing(f"No folder to back up was given. Name it with {option}.")
    return folder


def _models(ollama: str | None) -> bytes | None:
    """Ollama's list of models with their digests, so the same can be pulled again; None without an answer."""
    if ollama is None:
        return None
    try:
        reply = httpx.get(f"{ollama.rstrip('/')}/api/tags", timeout=10)
        reply.raise_for_status()
    except httpx.HTTPError:
        return None
    return reply.content
