"""A stack of its own for a test: other names, ports, networks and state than a person's, and the ways into it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ci.stack import container_engine
from ci.stack.project import ROOT
from tests.command import agent_loop
from tests.fakes.programs import free_port

WAIT = 240.0
"""Seconds that anything may take to become true on a busy machine."""


@dataclass(frozen=True)
class Running:
    """A stack under test, driven through the command line as a person would."""

    state: Path
    environment: Mapping[str, str]

    def call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `agent-loop WORDS`; fails the test with the whole output unless told not to."""
        done = agent_loop(*words, **self.environment)
        assert not check or done.returncode == 0, f"agent-loop {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `agent-loop WORDS` as a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "ci.cli", *words],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def created(self) -> list[str]:
        """The ids of its containers, whether they run or not."""
        return self.docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.name}"
        ).splitlines()

    @property
    def name(self) -> str:
        """The compose project."""
        return self.environment["AGENT_LOOP_PROJECT"]

    def key(self) -> str:
        """The first API key."""
        return self.call("secrets", "show", "api_key").stdout.strip()

    def client(self, port: str, tls: bool = False) -> httpx.Client:
        """An HTTP client at a published port, with the key."""
        address = f"{'https' if tls else 'http'}://127.0.0.1:{self.environment[port]}"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # self-signed at the first start
        return httpx.Client(
            base_url=address, headers={"Authorization": f"Bearer {self.key()}"}, timeout=60, verify=context
        )

    def containers(self) -> dict[str, str]:
        """Service to container id, of those that run."""
        listed = self.docker(
            "ps", "--format", "{{json .}}", "--filter", f"label=com.docker.compose.project={self.name}"
        )
        found = [json.loads(line) for line in listed.splitlines()]
        return {c["Names"].removeprefix(f"{self.name}-").rsplit("-", 1)[0]: c["ID"] for c in found}

    def docker(self, *words: str, check: bool = True) -> str:
        """A docker command's standard output."""
        done = subprocess.run(["docker", *words], capture_output=True, text=True)
        assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def inside(self, service: str, *words: str, check: bool = True) -> str:
        """The standard output of a command in a service's container."""
        return self.docker("exec", f"{self.name}-{service}-1", *words, check=check)

    def prometheus(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus says of an expression now."""
        words = ("promtool", "query", "instant", "-o", "json", "http://localhost:9090", expression)
        return json.loads(self.inside("prometheus", *words))  # type: ignore[no-any-return]


def eventually(condition: Callable[[], object], what: str, seconds: float = WAIT, pause: float = 1.0) -> Any:
    """What `condition` gives once it is true, asked every `pause` seconds; an exception inside counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except (httpx.HTTPError, AssertionError, ValueError) as error:
            found, seen = None, error
        else:
            seen = None
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} ({seen})"
        time.sleep(pause)


def restart_engine() -> None:
    """Stop the container engine, which ends every container, and start it again."""
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "restart", "docker"], check=True)
        return
    daemon = int(Path("/var/run/docker.pid").read_text())
    os.kill(daemon, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{daemon}").exists() or _is_zombie(daemon), "the end of the engine")
    container_engine.ensure(print)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@contextmanager
def stack(folder: Path, name: str, subnet: str, override: str = "") -> Iterator[Running]:
    """A stack's surroundings; whatever was started in them is gone afterwards, volumes too."""
    ports = ("AGENT_LOOP_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "OLLAMA_PORT", "HTTP_PORT", "HTTPS_PORT")
    environment = {
        "AGENT_LOOP_PROJECT": name,
        "AGENT_LOOP_STATE": str(folder / "state"),
        "AGENT_NETWORK_SUBNET": subnet,
        **{port: str(free_port()) for port in ports},
    }
    running = Running(folder / "state", environment)
    running.state.mkdir(mode=0o700, parents=True)
    if override:
        (running.state / "override.yaml").write_text(override)
    try:
        yield running
    finally:
        running.call("down", "--volumes", "--yes", check=False)
