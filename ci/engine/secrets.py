"""Secrets: named plaintexts that live in this process and reach steps as secret mounts only."""

from __future__ import annotations

import hashlib
import re
import subprocess
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import FieldError

MASK = "***"


@dataclass(frozen=True)
class Secret:
    """A secret by name (`setSecret`) or by address (`secret(uri:)`). Holds no plaintext."""

    label: str
    uri: str = ""

    @property
    def name(self) -> str:
        """What tells it from other secrets; a step is keyed by this, not by the value."""
        return self.uri or f"name:{self.label}"

    @property
    def handle(self) -> str:
        """A word for it that Docker accepts as a secret's id."""
        word = re.sub(r"[^A-Za-z0-9]+", "-", self.label or self.uri.partition("://")[2])[:30].strip("-")
        return f"{word or 'secret'}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


class Secrets:
    """The plaintexts of a session."""

    def __init__(self, env: Mapping[str, str], workdir: Path) -> None:
        self._env = env
        self._workdir = workdir
        self._set: dict[str, str] = {}
        self._read: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def set(self, name: str, plaintext: str) -> Secret:
        """Name a plaintext; setting a name again changes what it stands for."""
        with self._lock:
            self._set[name] = plaintext
        return Secret(name)

    @staticmethod
    def at(uri: str) -> Secret:
        """The secret at an address. Raises FieldError for a scheme that nobody serves."""
        scheme, sep, _ = uri.partition("://")
        if not sep:
            raise FieldError(f'parse "{uri}": malformed id')
        if scheme not in ("env", "file", "cmd"):
            raise FieldError(f'unsupported secret provider: "{scheme}"')
        return Secret("", uri)

    def plaintext(self, secret: Secret) -> bytes:
        """The value, read once a session. Raises FieldError."""
        if not secret.uri:
            if secret.label not in self._set:
                raise FieldError(f'secret "{secret.label}" has no value in this session')
            return self._set[secret.label].encode()
        with self._lock:
            if secret.uri not in self._read:
                self._read[secret.uri] = self._fetch(secret.uri)
            return self._read[secret.uri]

    def _fetch(self, uri: str) -> bytes:
        scheme, _, rest = uri.partition("://")
        prefix = "rpc error: code = Unknown desc = "
        match scheme:
            case "env":
                if rest not in self._env:
                    raise FieldError(f'{prefix}secret env var not found: "{rest[:3]}..."')
                return self._env[rest].encode()
            case "file":
                path = Path(rest).expanduser()
                path = path if path.is_absolute() else self._workdir / path
                try:
                    return path.read_bytes()
                except OSError as error:
                    why = (error.strerror or str(error)).lower()
                    raise FieldError(f'{prefix}failed to read secret file "{rest}": open {path}: {why}') from None
            case _:
                done = subprocess.run(
                    ["/bin/sh", "-c", rest], capture_output=True, cwd=self._workdir, env=dict(self._env)
                )
                if done.returncode:
                    raise FieldError(f'{prefix}failed to run secret command "{rest}": exit status {done.returncode}')
                return done.stdout

    def known(self) -> list[bytes]:
        """Every plaintext that this session has handled."""
        with self._lock:
            return [*[v.encode() for v in self._set.values()], *self._read.values()]


def scrub(data: bytes, plaintexts: Iterable[bytes]) -> bytes:
    """Each occurrence of a plaintext, with or without its last newline, or of a line of one, as `***`."""
    words: set[bytes] = set()
    for text in plaintexts:
        words |= {text, text.rstrip(b"\n"), *text.splitlines()}
    for word in sorted(words - {b""}, key=len, reverse=True):
        data = data.replace(word, MASK.encode())
    return data
