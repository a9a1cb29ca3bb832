"""Real programs for tests (Prometheus, Alertmanager, nginx, …): found, started on free ports, ended."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find(name: str, package: str) -> str:
    """The path of a distribution's program; fails the test, naming the package, where it is missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"'{name}' is not installed. apt-get install {package}")
    return found


def run(*command: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a short program; with `ok` a failure fails the test with its output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    if ok and done.returncode:
        pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


@dataclass
class Programs:
    """Starts programs, waits until they answer, and ends them all."""

    folder: Path
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str | Path], ready: str, *, patience: float = 60) -> Path:
        """Start `command` and wait until `ready` (a URL) answers below 500; returns the path of its log."""
        log = self.folder / f"{Path(command[0]).name}-{len(self._running)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT)
        self._running.append(process)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if process.poll() is not None:
                pytest.fail(f"{command[0]} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
            with suppress(httpx.TransportError):
                if httpx.get(ready, timeout=5, verify=False).status_code < 500:
                    return log
            time.sleep(0.1)
        pytest.fail(f"{command[0]} did not answer at {ready}:\n{log.read_text()[-2000:]}")

    def close(self) -> None:
        """End every program that was started."""
        for process in reversed(self._running):
            process.terminate()
        for process in reversed(self._running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
