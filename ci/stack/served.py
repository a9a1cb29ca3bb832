"""What `agent-loop deploy` serves, as the stack reads it: one record in the state folder, written by the trainer.

    state/served-model.json     {"model", "digest", "backend", …}
    state/models/served.gguf    the served file, where the backend is the agent's own llama.cpp

`agent-loop up` follows it: a new deployment changes the agent's environment, so compose starts it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.stack.errors import UsageError

CHOSEN = "model.env"
"""The file of the state folder that `agent-loop model use` writes."""


@dataclass(frozen=True)
class Served:
    """A deployed model: the name that the service asks for, its file's digest, and the backend that runs it."""

    model: str
    digest: str
    backend: str


def read(state: Path) -> Served | None:
    """The deployed model, or None where nothing was deployed. Raises UsageError for a record that cannot be read."""
    path = state / "served-model.json"
    if not path.is_file():
        return None
    try:
        said: dict[str, Any] = json.loads(path.read_text())
        # Ollama keeps each deployment under a tag of its own; the name without it is what is served.
        return Served(str(said["model"]).partition(":")[0], str(said["digest"]), str(said["backend"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"Not a served-model record ({error}), {path}. Delete it and deploy again.") from error


def environment(state: Path) -> dict[str, str]:
    """The variables that make the agent serve it; none where nothing was deployed, or a model was chosen later."""
    found, chosen = read(state), state / CHOSEN
    if found is None or (chosen.is_file() and chosen.stat().st_mtime > (state / "served-model.json").stat().st_mtime):
        return {}
    return {"AGENT_LOOP_MODEL": found.model, "AGENT_LOOP_SERVED_DIGEST": found.digest}


def by_llamacpp(state: Path) -> bool:
    """Whether the deployed model runs on the agent's own llama.cpp."""
    found = read(state)
    return found is not None and found.backend == "llamacpp" and bool(environment(state))
