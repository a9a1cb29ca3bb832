"""The container engine this machine uses: find one that answers, or install and start one and say so first.

Installing is Debian's own packages, done only where none answers and only as root or with AGENT_LOOP_INSTALL=1.
Debian 12's Docker has neither buildx nor compose v2, so there the five packages of Debian 13 are taken (they need
libc6 >= 2.34 only) and everything else, runc included, stays Debian 12's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ci.stack import apt

FROM_TRIXIE = ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "containerd")
PACKAGES = (*FROM_TRIXIE, "runc", "iptables")
DAEMON_JSON = Path("/etc/docker/daemon.json")
LOG = Path("/var/log/agent-loop-dockerd.log")
START_SECONDS = 60
ANSWER_SECONDS = 30.0
OWN = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
"""Where the daemon of this machine listens when nobody says otherwise; the only one that is started here."""
BY_HAND = (
    "Install Docker Engine 26.1 or later with buildx and the compose plugin, set"
    ' {"features": {"containerd-snapshotter": true}} in /etc/docker/daemon.json, and start it.'
    " On Debian as root, or with AGENT_LOOP_INSTALL=1, 'agent-loop setup' does all of it."
)


class EngineError(Exception):
    """No container engine answers; the message says what to run."""


@dataclass(frozen=True)
class Engine:
    """What `docker info` says of the engine in use."""

    version: str
    containerd_store: bool
    """Image digests are reproducible only with the containerd image store."""
    data_root: str = "/var/lib/docker"
    """The folder of the engine's machine with images, volumes and containers' logs."""


def answers() -> Engine | None:
    """The engine that the docker command reaches now, or None where none answers within half a minute."""
    if shutil.which("docker") is None:
        return None
    try:
        asked = subprocess.run(
            ["docker", "info", "--format", "{{json .}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    try:
        info = json.loads(asked.stdout)
    except ValueError:
        return None
    if not info.get("ServerVersion"):
        return None
    drivers = [str(value) for pair in info.get("DriverStatus") or [] for value in pair]
    store = any("containerd" in value for value in drivers)
    return Engine(info["ServerVersion"], store, info.get("DockerRootDir") or Engine.data_root)


def lacks() -> list[str]:
    """The docker command's plugins that are not there, of the two the project needs."""
    asked = {
        name: subprocess.Popen(["docker", name, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ("buildx", "compose")
    }
    return [name for name, process in asked.items() if process.wait() != 0]


def ensure(say: Callable[[str], None]) -> Engine:
    """Return an engine that answers, after installing and starting one where that is allowed.

    Raises EngineError with the commands for a person where it is not, or where the daemon does not come up.
    """
    engine = answers()
    absent = lacks() if engine is not None else []
    if engine is not None and not absent:
        return engine
    if engine is not None:
        raise EngineError(f"Docker answers but lacks {' and '.join(absent)}. {BY_HAND}")
    if elsewhere := problem_elsewhere():
        raise EngineError(elsewhere)
    if not apt.may_install():
        raise EngineError(f"No container engine answers. {BY_HAND}")
    if shutil.which("dockerd") is None or lacks():
        _install(say)
    _start(say)
    engine = answers()
    if engine is None:
        raise EngineError(f"dockerd runs but 'docker info' fails; see {LOG} and DOCKER_HOST")
    return engine


def problem_elsewhere() -> str | None:
    """What to say of an engine that does not answer where installing or starting one on this machine mends nothing.

    Either the docker command is told to use another (DOCKER_HOST, a context), or this person may not speak to the one
    that runs. None where neither is so.
    """
    if shutil.which("docker") is None:
        return None
    shown = subprocess.run(
        ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    address = shown.stdout.strip()
    if shown.returncode != 0:
        said = shown.stderr.strip().rstrip(".")
        return f"No container engine can be asked: {said}. Choose another context: docker context use default."
    if address not in OWN:
        how = "unset DOCKER_HOST" if os.environ.get("DOCKER_HOST") else "docker context use default"
        return f"No container engine answers at {address}. Start it, or take this machine's own: {how}."
    socket = Path(address.removeprefix("unix://"))
    if socket.exists() and not os.access(socket, os.R_OK | os.W_OK):
        return (
            f"Not allowed to use the container engine, {socket}. Join its group, then log in again:"
            " sudo usermod -aG docker $USER"
        )
    return None


def _install(say: Callable[[str], None]) -> None:
    distribution, codename = apt.release()
    if (distribution, codename) not in (("debian", "bookworm"), ("debian", "trixie")):
        raise EngineError(f"No container engine answers, and this is not Debian 12 or 13. {BY_HAND}")
    needed = apt.missing(PACKAGES)
    say(f"Installing a container engine from Debian's packages: {' '.join(needed)}")
    try:
        if codename == "bookworm":
            apt.add_suite("trixie", FROM_TRIXIE)
        if not DAEMON_JSON.exists():
            DAEMON_JSON.parent.mkdir(parents=True, exist_ok=True)
            DAEMON_JSON.write_text('{"features": {"containerd-snapshotter": true}}\n')
        apt.install(needed)
    except (apt.InstallError, OSError, subprocess.CalledProcessError) as error:
        raise EngineError(f"{error}\n{BY_HAND}") from error


def _start(say: Callable[[str], None]) -> None:
    """Start the daemon through the service manager where one runs, else by itself in the background."""
    if Path("/run/systemd/system").is_dir():
        say("Starting docker.service")
        subprocess.run(["systemctl", "start", "docker"], check=False)
    else:
        say(f"Starting dockerd (no service manager here); its log is {LOG}")
        # A pid file left by a daemon that was killed makes the next one refuse to start.
        pid = Path("/var/run/docker.pid")
        if pid.is_file() and not Path(f"/proc/{pid.read_text().strip()}").exists():
            pid.unlink()
        with LOG.open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "dockerd"],  # it outlives this command
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
                env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
            )
    deadline = time.monotonic() + START_SECONDS
    while answers() is None:
        if time.monotonic() > deadline:
            tail = LOG.read_text(errors="replace").splitlines()[-5:] if LOG.exists() else []
            raise EngineError("dockerd did not answer within a minute:\n" + "\n".join(tail))
        time.sleep(0.5)
