"""Reading the machine for `doctor`: one snapshot, each part from the tool or file that knows it."""

from __future__ import annotations

import json
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ci.stack import mounted
from ci.stack.project import ROOT, read_env
from ci.stack.reach import clock_skew, model_size, registry_answers

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
    model_size: int | None = None
    """Of the model to serve, as its registry says; None where that could not be asked."""
    clock_skew: float | None = None
    """Seconds this clock is ahead of a server's, or None when no server could be asked."""
    open_files: int = 0
    unreadable: tuple[str, ...] = ()
    """Files of the checkout that containers need and cannot read."""


def read(project: str, ports: Iterable[int], model: str, state: Path) -> Machine:
    """Read everything. Nothing here raises: what cannot be read is absent in the snapshot."""
    with ThreadPoolExecutor(8) as beside:  # nearly all of it waits for a program or the network
        asked = beside.submit(json_of, "docker", "info", "--format", "{{json .}}")
        components = beside.submit(output_of, "docker", "version", "--format", "{{json .Server.Components}}")
        compose = beside.submit(line_of, "docker", "compose", "version", "--short")
        buildx = beside.submit(line_of, "docker", "buildx", "version")
        holders = {port: beside.submit(holder_of, port, project) for port in ports}
        cards = beside.submit(output_of, "nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
        routes = beside.submit(networks, project)
        held = beside.submit(images_held, read_env(state / "images.env"))
        registry = beside.submit(registry_answers)
        pulled = beside.submit(model_present, project, model)
        size = beside.submit(model_size, model)
        skew = beside.submit(clock_skew)
    info = asked.result()
    drivers = [str(value) for pair in info.get("DriverStatus") or [] for value in pair]
    data_root = str(info.get("DockerRootDir") or "/")
    return Machine(
        engine=info.get("ServerVersion") or None,
        containerd_store=any("containerd" in value for value in drivers),
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or []),
        podman="Podman" in components.result(),
        desktop=str(info.get("OperatingSystem")) == "Docker Desktop",
        architecture=str(info.get("Architecture") or ""),
        compose=compose.result(),
        buildx=buildx.result(),
        runtimes=tuple(info.get("Runtimes") or ()),
        cdi=bool(info.get("CDISpecDirs")) and any(Path(d).glob("*") for d in info.get("CDISpecDirs") or []),
        cgroup_driver=str(info.get("CgroupDriver") or ""),
        listening={port: holder for port, found in holders.items() if (holder := found.result())},
        disk_path=data_root,
        disk_free=free_at(data_root),
        state_path=str(state),
        state_free=shutil.disk_usage(state).free,
        memory_free=memory_available(),
        gpus=tuple(cards.result().splitlines()),
        routes=tuple(routes.result()),
        images=held.result(),
        registry=registry.result(),
        model_present=pulled.result(),
        model_size=size.result(),
        clock_skew=skew.result(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        unreadable=tuple(str(path) for path in mounted.unreadable(ROOT)),
    )


def card_usable() -> bool:
    """Whether a card answers and containers can be given it."""
    if not output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"):
        return False
    info = json_of("docker", "info", "--format", "{{json .}}")
    return "nvidia" in (info.get("Runtimes") or {}) or any(Path(d).glob("*") for d in info.get("CDISpecDirs") or [])


def output_of(*command: str, partly: bool = False) -> str:
    """Standard output of a command, or nothing when it is missing, hangs, or fails (unless `partly` will do)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if partly or done.returncode == 0 else ""


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


def free_at(folder: str) -> int:
    """Bytes free for a folder, at its nearest parent where it is hidden from this person or on another machine."""
    for place in (Path(folder), *Path(folder).parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return shutil.disk_usage("/").free


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
    names = output_of("docker", "network", "ls", "--quiet").split()
    template = '{{index .Labels "com.docker.compose.project"}}|{{.Name}}|{{range .IPAM.Config}}{{.Subnet}} {{end}}'
    # One that is gone since they were listed fails the command, which tells the others all the same.
    told = output_of("docker", "network", "inspect", "--format", template, *names, partly=True) if names else ""
    for line in told.splitlines():
        owner, name, subnets = line.split("|")
        who = "this stack" if owner == project else f"Docker network {name}"
        found += [Route(subnet, who) for subnet in subnets.split() if ":" not in subnet]
    mine = {route.subnet for route in found}
    return found + [route for route in routes(output_of("ip", "-4", "route")) if route.subnet not in mine]


def routes(told: str) -> Iterator[Route]:
    """The subnets in what `ip route` tells; one that leads nowhere (`blackhole 10.0.0.0/8`) has a word before it."""
    for line in told.splitlines():
        words = line.split()
        subnet = next((word for word in words[:2] if "/" in word), None)
        if subnet:
            yield Route(subnet, f"interface {words[words.index('dev') + 1]}" if "dev" in words else "a route")


def images_held(recorded: Mapping[str, str]) -> frozenset[str]:
    """The variables of `recorded` whose image the engine holds."""
    ask = ("docker", "image", "inspect", "--format", "{{.Id}}")
    if recorded and output_of(*ask, *recorded.values()):  # as a rule it holds all of them
        return frozenset(recorded)
    return frozenset(variable for variable, reference in recorded.items() if output_of(*ask, reference))


def model_present(project: str, model: str) -> bool:
    """Whether the running Ollama of this stack, on the processor or the card, lists the model."""
    form = '{{.ID}} {{.Label "com.docker.compose.service"}}'
    running = output_of("docker", "ps", f"--filter=label=com.docker.compose.project={project}", "--format", form)
    containers = [line.split()[0] for line in running.splitlines() if line.endswith((" ollama", " ollama-gpu"))]
    listed = output_of("docker", "exec", containers[0], "ollama", "list") if containers else ""
    return any(line.split()[:1] in ([model], [f"{model}:latest"]) for line in listed.splitlines())
