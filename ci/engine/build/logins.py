"""Registry logins of a session: a Docker configuration of its own, beside the person's.

As on a Dagger engine a login counts for the whole session: a base that one container starts from is fetched by the
builds of every other that stands on it.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HUB = "https://index.docker.io/v1/"
"""How Docker's configuration calls Docker Hub."""


class Logins:
    """Logins by registry. None are kept when the session ends."""

    def __init__(self, env: Mapping[str, str], folder: Callable[[], Path]) -> None:
        """`folder` makes a new folder in the session's scratch."""
        self._env, self._make = env, folder
        self._auths: dict[str, str] = {}
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def add(self, address: str, user: str, word: bytes) -> None:
        """Log in to the registry of an address from now on."""
        with self._lock:
            self._auths[_registry(address)] = base64.b64encode(user.encode() + b":" + word).decode()
            self._folder = None

    def remove(self, address: str) -> None:
        """Be unknown to a registry again, if the person's own configuration does not say otherwise."""
        with self._lock:
            self._auths.pop(_registry(address), None)
            self._folder = None

    def environment(self) -> dict[str, str]:
        """The variables with which docker and buildx use the logins; none while there are none."""
        with self._lock:
            if not self._auths:
                return {}
            if self._folder is None:
                self._folder = self._write(self._make())
            return {"DOCKER_CONFIG": str(self._folder)}

    def _write(self, folder: Path) -> Path:
        own = Path(self._env.get("DOCKER_CONFIG") or Path.home() / ".docker")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if own.is_dir():
            for each in own.iterdir():  # contexts, builders, plugins
                if each.name != "config.json":
                    (folder / each.name).symlink_to(each.absolute())
        try:
            config: dict[str, Any] = json.loads((own / "config.json").read_text())
        except (OSError, ValueError):
            config = {}
        auths, helpers = config.setdefault("auths", {}), config.get("credHelpers", {})
        for registry, login in self._auths.items():
            auths[registry] = {"auth": login}
            helpers.pop(registry, None)
        config.pop("credsStore", None)  # it would be asked instead
        path = folder / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return folder


def _registry(address: str) -> str:
    host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return HUB if host in ("docker.io", "index.docker.io", "registry-1.docker.io") else host
