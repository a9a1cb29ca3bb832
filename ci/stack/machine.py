"""Reading the machine for `doctor`: one snapshot, each part from the tool or file that knows it."""

from __future__ import annotations

import email.utils
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ci.stack.project import read_env
from ci.stack.reach import registry_answers

TIMEOUT = 10.0


@dataclass(frozen=True)
class Route:
    """A subnet that is in use, and by whom."""

    subnet: str
    owner: str


@dataclass(frozen=True)
class Machine:
    """A snapshot of what the checks look at. Sizes are bytes."""

    engine: str | None = None
    containerd_store: bool = True
    rootless: bool = False
    podman: bool = False
    desktop: bool = False
    architecture: str = ""
    compose: str | None = None
    buildx: str | None = None
    runtimes: tuple[str, ...] = ()
    cdi: bool = False
    cgroup_driver: str = ""
    listening: dict[int, str] = field(default_factory=dict)
    """Port to what holds it; `this stack` for the stack's own."""
    disk_path: str = "/"
    disk_free: int = 0
    state_path: str = ""
    state_free: int = 0
    memory_free: int = 0
    gpus: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    images: frozenset[str] = frozenset()
    """Variables whose recorded image the engine holds."""
    registry: bool = False
    model_present: bool = False
    clock_skew: float | None = None
    """Seconds this clock is ahead of a server's, or None when no server could be asked."""
    open_files: int = 0


def read(project: str, ports: Iterable[int], model: str, state: Path) -> Machine:
    """Read everything. Nothing here raises: what cannot be read is absent in the snapshot."""
    info = json_of("docker", "info", "--format", "{{json .}}")
    drivers = [str(value) for pair in info.get("DriverStatus") or [] for value in pair]
    data_root = str(info.get("DockerRootDir") or "/")
    disk = shutil.disk_usage(data_root if Path(data_root).exists() else "/")
    return Machine(
        engine=info.get("ServerVersion") or None,
        containerd_store=any("containerd" in value for value in drivers),
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or []),
        podman="Podman" in output_of("docker", "version", "--format", "{{json .Server.Components}}"),
        desktop=str(info.get("OperatingSystem")) == "Docker Desktop",
        architecture=str(info.get("Architecture") or ""),
        compose=line_of("docker", "compose", "version", "--short"),
        buildx=line_of("docker", "buildx", "version"),
        runtimes=tuple(info.get("Runtimes") or ()),
        cdi=bool(info.get("CDISpecDirs")) and any(Path(d).glob("*") for d in info.get("CDISpecDirs") or []),
        cgroup_driver=str(info.get("CgroupDriver") or ""),
        listening={port: holder for port in ports if (holder := holder_of(port, project))},
        disk_path=data_root,
        disk_free=disk.free,
        state_path=str(state),
        state_free=shutil.disk_usage(state).free,
        memory_free=memory_available(),
        gpus=tuple(output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()),
        routes=tuple(networks(project)),
        images=frozenset(images_held(read_env(state / "images.env"))),
        registry=registry_answers(),
        model_present=model_present(project, model),
        clock_skew=clock_skew(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def card_usable() -> bool:
    """Whether a card answers and containers can be given it."""
    if not output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"):
        return False
    info = json_of("docker", "info", "--format", "{{json .}}")
    return "nvidia" in (info.get("Runtimes") or {}) or any(Path(d).glob("*") for d in info.get("CDISpecDirs") or [])


def output_of(*command: str) -> str:
    """Standard output of a command, or nothing when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def line_of(*command: str) -> str | None:
    """The first line of a command's output, or None."""
    return next(iter(output_of(*command).splitlines()), None)


def json_of(*command: str) -> dict[str, Any]:
    """A command's output as a JSON object; empty where it is none."""
    try:
        found: Any = json.loads(output_of(*command))
    except ValueError:
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def holder_of(port: int, project: str) -> str | None:
    """What listens on a local port: `this stack`, a container, a process, or `another program`; None when free."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return None
    names = output_of(
        "docker", "ps", "--filter", f"publish={port}", "--format", '{{.Label "com.docker.compose.project"}} {{.Names}}'
    )
    for line in names.splitlines():
        owner, _, container = line.rpartition(" ")
        return "this stack" if owner == project else f"container {container}"
    process = re.search(r'users:\(\("([^"]+)",pid=(\d+)', output_of("ss", "-Hltnp", f"sport = :{port}"))
    return f"{process[1]} (pid {process[2]})" if process else "another program"


def memory_available() -> int:
    """MemAvailable of the kernel, in bytes; 0 where there is no such file."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def networks(project: str) -> list[Route]:
    """Subnets of the engine's networks and of the machine's own routes."""
    found: list[Route] = []
    for name in output_of("docker", "network", "ls", "--format", "{{.Name}}").splitlines():
        template = '{{index .Labels "com.docker.compose.project"}}|{{range .IPAM.Config}}{{.Subnet}} {{end}}'
        owner, _, subnets = output_of("docker", "network", "inspect", name, "--format", template).partition("|")
        who = "this stack" if owner == project else f"Docker network {name}"
        found += [Route(subnet, who) for subnet in subnets.split() if ":" not in subnet]
    mine = {route.subnet for route in found}
    for line in output_of("ip", "-4", "route").splitlines():
        words = line.split()
        if "/" in words[0] and words[0] not in mine:
            found.append(Route(words[0], f"interface {words[words.index('dev') + 1]}" if "dev" in words else "a route"))
    return found


def images_held(recorded: Mapping[str, str]) -> Iterator[str]:
    """The variables of `recorded` whose image the engine holds."""
    for variable, reference in recorded.items():
        if line_of("docker", "image", "inspect", "--format", "{{.Id}}", reference):
            yield variable


def model_present(project: str, model: str) -> bool:
    """Whether the running Ollama of this stack lists the model."""
    container = line_of(
        "docker",
        "ps",
        "--quiet",
        f"--filter=label=com.docker.compose.project={project}",
        "--filter=label=com.docker.compose.service=ollama",
    )
    listed = output_of("docker", "exec", container, "ollama", "list") if container else ""
    return any(line.split()[:1] in ([model], [f"{model}:latest"]) for line in listed.splitlines())


def clock_skew() -> float | None:
    """Seconds this clock is ahead of a web server's `Date`, asked of AGENT_LOOP_CLOCK_URL; None when not to be had."""
    url = os.environ.get("AGENT_LOOP_CLOCK_URL", "https://registry-1.docker.io/v2/")
    if not url.startswith(("http://", "https://")):
        return None
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the scheme was checked above
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:  # noqa: S310
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")
    except (OSError, ValueError):
        return None
    if not date:
        return None
    return time.time() - email.utils.parsedate_to_datetime(date).timestamp()
