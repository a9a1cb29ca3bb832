"""The stack's secrets: made once with good randomness, kept as files that only their owner's folder hides.

Compose mounts file secrets with the file's own mode and no way to change it, and our containers are not root: so each
file is 0444 inside a folder that is 0700.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ci.stack.errors import UsageError


@dataclass(frozen=True)
class Secret:
    """A secret's name (its file), what it opens, and how a new one is made."""

    name: str
    opens: str
    make: Callable[[], str] | None
    """None: only its owner can, and gives it in `variable`; an empty file stands for "none"."""
    variable: str = ""

    def given(self) -> str:
        """What the person gives in its variable now; empty where nothing."""
        return os.environ.get(self.variable, "") if self.variable else ""


def _token(prefix: str = "") -> Callable[[], str]:
    return lambda: prefix + secrets.token_urlsafe(32)


SECRETS = {
    s.name: s
    for s in (
        Secret("api_key", "the service's API and page", _token("al_")),
        Secret("grafana", "Grafana, user admin", _token()),
        Secret("jupyter", "Jupyter Lab", _token()),
        Secret("alert_sink_token", "the alert sink, for Alertmanager", _token()),
        Secret("hub_token", "gated models on the Hugging Face hub (yours: HF_TOKEN)", None, "HF_TOKEN"),
        Secret(
            "database_url",
            "a run store in PostgreSQL (yours: AGENT_LOOP_DATABASE_URL)",
            None,
            "AGENT_LOOP_DATABASE_URL",
        ),
    )
}


def folder(state: Path) -> Path:
    """The secrets' folder inside the state folder, private to its owner."""
    path = state / "secrets"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def ensure(state: Path) -> list[str]:
    """Make the secrets that are missing, take those that a person gives anew, and return the names of both.

    What was made here is never touched again.
    """
    written: list[str] = []
    for secret in SECRETS.values():
        path = folder(state) / secret.name
        before = path.read_text() if path.is_file() else None
        # A person's own stays where its variable is not set the next time.
        text = secret.given() or before or (secret.make() if secret.make else "")
        if text == before:
            continue
        draft = path.with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "w") as out:
            os.fchmod(out.fileno(), 0o444)  # whatever the person's umask takes away
            out.write(text)
        draft.replace(path)
        written.append(secret.name)
    return written


def show(state: Path, name: str) -> str:
    """One secret's text. Raises UsageError for a name that is none, or for one that is not made yet."""
    if name not in SECRETS:
        raise UsageError(f"No secret '{name}'. There are {', '.join(sorted(SECRETS))}.")
    path = folder(state) / name
    if not path.is_file():
        raise UsageError(f"The secret '{name}' is not made yet. 'agent-loop up' makes it.")
    return path.read_text()
