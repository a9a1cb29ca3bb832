"""Which model is served: one small file that `deploy` writes and `deploy --rollback` reads.

    $AGENT_LOOP_STATE/served-model.json     {"model", "path", "digest", "backend", "run", "previous"}

`previous` is the same record of what was served before, so that one step back is always possible. The file is
replaced whole. `AGENT_LOOP_STATE` is the folder `state` where nothing is set, as for the rest of the project.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "served-model.json"


@dataclass(frozen=True)
class Served:
    """A model that is served. `path` is absolute for llama.cpp and None for Ollama, which keeps its own copy."""

    model: str
    digest: str
    backend: str
    path: str | None = None
    run: str | None = None
    previous: Served | None = None


def folder() -> Path:
    """The state folder."""
    return Path(os.environ.get("AGENT_LOOP_STATE") or "state").absolute()


def read() -> Served | None:
    """What is served, None where nothing was deployed yet. A file that cannot be read raises ValueError."""
    path = folder() / FILE
    try:
        return _record(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"Not a served-model record ({error}), {path}. Delete it and deploy again.") from None


def write(served: Served) -> Path:
    """Replace the record; only one earlier model is kept."""
    record = asdict(served)
    if record["previous"]:
        record["previous"]["previous"] = None
    path = folder() / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{FILE}-{os.getpid()}")
    part.write_text(json.dumps(record, indent=2) + "\n")
    return part.replace(path)


def _record(said: dict[str, object]) -> Served:
    previous = said.get("previous")
    known = {key: said.get(key) for key in ("model", "digest", "backend", "path", "run")}
    if not all(isinstance(known[key], str) for key in ("model", "digest", "backend")):
        raise TypeError("model, digest or backend is missing")
    return Served(**known, previous=_record(previous) if isinstance(previous, dict) else None)  # type: ignore[arg-type]
