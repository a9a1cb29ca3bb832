"""A registry on this machine: Debian's docker-registry, listening on loopback."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOGIN = ("tester", "only-for-tests")
HASHED = "$2b$04$b24fe3p.4vqOLKdwexzeV.5NbZ49gyUuZ9/x9yqGFa64l1fu8prDi"
"""The second word of `LOGIN` by bcrypt, the one way of hashing that the registry takes."""


def program(folder: Path) -> Path:
    """The registry's program: from the PATH, else unpacked from Debian's package, which changes nothing here."""
    if there := shutil.which("docker-registry"):
        return Path(there)
    subprocess.run(["apt-get", "download", "-q", "docker-registry"], cwd=folder, check=True, capture_output=True)
    package = next(folder.glob("docker-registry_*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
    return folder / "unpacked" / "usr" / "bin" / "docker-registry"


@dataclass(frozen=True)
class Registry:
    """A registry that listens on loopback."""

    address: str
    user: str = ""
    word: str = ""

    def get(self, path: str, *accept: str) -> dict[str, Any]:
        """A manifest or a JSON blob."""
        request = urllib.request.Request(f"http://{self.address}/v2/{path}", headers={"Accept": ", ".join(accept)})
        if self.user:
            login = base64.b64encode(f"{self.user}:{self.word}".encode()).decode()
            request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read())

    def answers(self) -> bool:
        try:
            self.get("_catalog")
        except OSError:
            return False
        return True


@contextlib.contextmanager
def running(folder: Path, *, private: bool = False) -> Iterator[Registry]:
    """An empty registry that keeps what it is given in `folder`, until the block ends; a private one wants a login."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    made = Registry(address, *LOGIN) if private else Registry(address)
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
    }
    if private:
        (folder / "users").write_text(f"{LOGIN[0]}:{HASHED}\n")
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "users")}}
    file = folder / "config.yml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    with subprocess.Popen(
        [program(folder), "serve", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            end = time.monotonic() + 60
            while not made.answers():
                assert server.poll() is None, f"The registry ended with status {server.returncode}."
                assert time.monotonic() < end, "The registry did not answer within a minute."
                time.sleep(0.1)
            yield made
        finally:
            server.terminate()
