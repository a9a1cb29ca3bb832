"""Base images: from a reference to a configuration, a digest, and a place that BuildKit can read.

By default a reference is resolved at its registry. With `AGENT_LOOP_BASES=local`, or where the registry cannot
be reached, it is one of the layouts of `agent-loop bases build`: `<cache>/bases/<name>/<arch>/`, listed in
`<cache>/bases/index.json` by reference (without digest, without `docker.io/library/`).
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.engine.errors import BuildFailed, FieldError
from ci.engine.schema import cache_folder

if TYPE_CHECKING:
    from ci.engine.files.fs import Image
    from ci.engine.session import Session

PARSE = (
    "failed to resolve identity inputs for Container.from: "
    'resolve implicit input "fromSessionScope": failed to parse image address'
)
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    rf"(?P<name>(?:(?P<host>(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?)/)?{COMPONENT}(?:/{COMPONENT})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,}))?"
)
UNREACHABLE_FOR = 600.0
"""Seconds that a registry counts as out of reach after a failed try."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Reference:
    """A parsed image reference."""

    host: str
    path: str
    tag: str
    digest: str

    @property
    def full(self) -> str:
        """With registry and tag, without digest."""
        return f"{self.host}/{self.path}" + (f":{self.tag}" if self.tag else "")

    @property
    def pinned(self) -> str:
        """With the digest, if it has one."""
        return self.full + (f"@{self.digest}" if self.digest else "")

    @property
    def short(self) -> str:
        """As `bases/index.json` lists it."""
        return self.full.removeprefix("docker.io/library/").removeprefix("docker.io/")


def parse(text: str) -> Reference:
    """Read a reference as Docker does. Raises FieldError."""
    domain, slash, rest = text.partition("/")
    if not slash or not ("." in domain or ":" in domain or domain == "localhost"):
        rest = text if slash else f"library/{text}"
    name = rest.partition(":")[0]
    if name != name.lower():
        raise FieldError(f"{PARSE} {text}: invalid reference format: repository name ({name}) must be lowercase")
    match = REFERENCE.fullmatch(text)
    if match is None:
        raise FieldError(f"{PARSE} {text}: invalid reference format")
    host = match["host"] or ""
    path = match["name"]
    if host and not (("." in host) or (":" in host) or host == "localhost"):
        host = ""
    if host:
        path = path[len(host) + 1 :]
    else:
        host = "docker.io"
        path = path if "/" in path else f"library/{path}"
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return Reference(host, path, tag, match["digest"] or "")


@dataclass(frozen=True)
class Resolved:
    """A base image that was found."""

    reference: str
    """With digest."""
    config: Mapping[str, Any]
    """The `config` part of its configuration file."""
    context: str = ""
    """A build context (`oci-layout://...`) where it is not in a registry."""
    local: bool = False


class Images:
    """Resolves references, each once a session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._found: dict[tuple[str, str], Resolved] = {}
        self._built: dict[str, Resolved] = {}

    def resolve(self, address: str, platform: str) -> Resolved:
        """Find an image. Raises FieldError with what to do."""
        reference = parse(address)
        key = (reference.pinned, platform)
        if key not in self._found:
            self._found[key] = self._resolve(reference, platform)
        return self._found[key]

    def keep(self, image: Image, found: Resolved) -> None:
        """Note an image that was built in this session."""
        self._built[image.key] = found

    def of(self, image: Image) -> Resolved:
        """What is known of an image that a file system rests on."""
        return self._built.get(image.key) or self.resolve(image.address, image.platform)

    def _resolve(self, reference: Reference, platform: str) -> Resolved:
        choice = self.session.options.bases
        local = self._layout(reference, platform)
        if self.session.plan is not None:
            return local or Resolved(reference.pinned, {"Env": [f"PATH={DEFAULT_PATH}"]})
        if choice == "local":
            if local is None:
                raise FieldError(
                    f"No local base image for {reference.short} ({platform}) in {_bases()}. "
                    f"{_make(reference, platform)}"
                )
            return local
        if choice != "registry" and not self._reachable(reference.host):
            if local is None:
                raise FieldError(
                    f"Registry {reference.host} cannot be reached and there is no local base image for "
                    f"{reference.short} ({platform}). {_make(reference, platform)}"
                )
            self.session.say("bases", f"Registry {reference.host} cannot be reached: using local base images.")
            return local
        return self._registry(reference, platform)

    def _layout(self, reference: Reference, platform: str) -> Resolved | None:
        index = _json(_bases() / "index.json")
        name = index.get(reference.short)
        if not isinstance(name, str):
            return None
        folder = _bases() / name / platform.split("/")[1]
        outer = _json(folder / "index.json")
        try:
            digest: str = outer["manifests"][0]["digest"]
            manifest = _json(folder / "blobs" / digest.replace(":", "/"))
            if "manifests" in manifest:
                digest = manifest["manifests"][0]["digest"]
                manifest = _json(folder / "blobs" / digest.replace(":", "/"))
            config = _json(folder / "blobs" / str(manifest["config"]["digest"]).replace(":", "/"))
        except (KeyError, IndexError, TypeError):
            return None
        return Resolved(
            f"{reference.full}@{digest}", config.get("config") or {}, f"oci-layout://{folder}@{digest}", local=True
        )

    def _registry(self, reference: Reference, platform: str) -> Resolved:
        buildkit = self.session.builder.buildkit
        try:
            answer = buildkit.inspect(reference.pinned, platform)
        except BuildFailed as failed:
            raise FieldError(
                f'failed to resolve image "{reference.pinned}" (platform: "{platform}"): {failed.reason}'
            ) from None
        return Resolved(f"{reference.full}@{answer.digest}", answer.config)

    def _reachable(self, host: str) -> bool:
        """Whether a registry answers on its port; a failure is remembered for some minutes."""
        note = cache_folder() / "registries.json"
        known = _json(note)
        if time.time() - float(known.get(host, 0)) < UNREACHABLE_FOR:
            return False
        name, _, port = ("registry-1.docker.io" if host == "docker.io" else host).partition(":")
        try:
            socket.create_connection((name, int(port or 443)), timeout=3).close()
            return True
        except OSError:
            try:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(json.dumps({**known, host: time.time()}))
            except OSError:
                pass
            return False


def _make(reference: Reference, platform: str) -> str:
    """What to do for a base that is not here."""
    from ci.engine.bases import store

    command = store.command(reference.short, platform.split("/")[1])
    return f"Make it: {command}." if command else "No recipe makes it: agent-loop bases list."


def _bases() -> Path:
    return cache_folder() / "bases"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
