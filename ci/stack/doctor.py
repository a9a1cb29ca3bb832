"""`agent-loop doctor`: one table of what the stack needs, each line ok, warn or fail, with the fix.

Every check is a function from the machine as it was read (`Machine`) to findings, so that each failure the field knows
of is tested without having to break a machine. Reading the machine is in `ci.stack.machine`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ci.stack import mounted
from ci.stack.machine import Machine
from ci.stack.project import ROOT
from ci.stack.wanted import DISK_AGAIN, GIB, Wanted

MIB = 1024**2
OLDEST_ENGINE = (26, 1)
OLDEST_COMPOSE = (2, 26)
STATE_RESERVE = 16 * MIB
"""Bytes for secrets, certificate and records beside the compose files."""
OPEN_FILES = 4096


class Level(StrEnum):
    """How a finding is to be taken; `fail` makes the command's exit status 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    check: str
    level: Level
    detail: str
    fix: str = ""


Check = Callable[[Machine, Wanted], Iterator[Finding]]


def engine(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """A container engine that answers, new enough, with the containerd image store."""
    if machine.engine is None:
        yield Finding("engine", Level.FAIL, "no container engine answers", "agent-loop setup")
        return
    found = f"Docker {machine.engine}"
    if version(machine.engine) < OLDEST_ENGINE:
        yield Finding("engine", Level.FAIL, f"{found} is older than 26.1", "upgrade Docker, or: agent-loop setup")
    else:
        yield Finding("engine", Level.OK, found)
    if not machine.containerd_store:
        fix = '{"features": {"containerd-snapshotter": true}} in /etc/docker/daemon.json, then restart Docker'
        yield Finding("image store", Level.WARN, "not containerd's: digests are not reproducible", fix)
    if machine.rootless:
        yield Finding("rootless", Level.WARN, "rootless engine: ports below 1024 need a sysctl", "docs/install.md")


def compose(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """Compose and buildx, new enough."""
    if machine.compose is None:
        yield Finding("compose", Level.FAIL, "the compose plugin is missing", "agent-loop setup")
    elif version(machine.compose) < OLDEST_COMPOSE:
        yield Finding("compose", Level.FAIL, f"{machine.compose} is older than 2.26", "upgrade docker-compose")
    else:
        yield Finding("compose", Level.OK, machine.compose)
    if machine.buildx is None:
        yield Finding("buildx", Level.FAIL, "the buildx plugin is missing", "agent-loop setup")


def platform(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """What is known of Podman and of Apple silicon; nothing to say elsewhere."""
    if machine.podman:
        yield Finding(
            "platform", Level.WARN, "Podman answers: it starts stacks but builds no images", "docs/install.md"
        )
    elif machine.desktop and machine.architecture in ("aarch64", "arm64"):
        detail = "Docker Desktop on ARM: containers reach no graphics card, models run on the CPU"
        yield Finding("platform", Level.WARN, detail, "docs/install.md")


def ports(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """Each port to publish is free, or held by this very stack."""
    for variable, number in wanted.ports.items():
        holder = machine.listening.get(number)
        if holder is None or holder == "this stack":
            yield Finding(f"port {number}", Level.OK, holder or "free")
        else:
            yield Finding(f"port {number}", Level.FAIL, f"taken by {holder}", f"stop it, or move ours: {variable}=…")
    for number, variables in sorted(_shared(wanted.ports).items()):
        detail = f"wanted by {' and '.join(variables)}"
        yield Finding(f"port {number}", Level.FAIL, detail, "give each a port of its own")


def _shared(ports: Mapping[str, int]) -> dict[int, list[str]]:
    """Ports that more than one variable names."""
    return {
        number: [name for name, other in ports.items() if other == number]
        for number in ports.values()
        if list(ports.values()).count(number) > 1
    }


def disk(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """Room for the images, a model and a margin where the engine keeps its data, and for what the wrapper writes."""
    there = set(wanted.images) <= machine.images
    needed = (DISK_AGAIN if there else wanted.disk) + (
        0 if wanted.offline or machine.model_present else machine.model_size or wanted.model_bytes
    )
    detail = f"{machine.disk_free / GIB:.0f} GiB free in {machine.disk_path}, {needed / GIB:.0f} GiB needed"
    level = Level.OK if machine.disk_free >= needed else Level.FAIL
    yield Finding("disk", level, detail, "" if level == Level.OK else "agent-loop clean, or move Docker's data-root")
    if machine.state_free < STATE_RESERVE:
        detail = (
            f"{machine.state_free / MIB:.1f} MiB free in {machine.state_path}, {STATE_RESERVE / MIB:.0f} MiB needed"
        )
        yield Finding(
            "state folder", Level.FAIL, detail, "free space there, or name another folder: AGENT_LOOP_STATE=…"
        )


def memory(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """Memory for the model unless a card holds it."""
    model = machine.model_size or wanted.model_bytes
    needed = GIB if wanted.offline or machine.gpus else model + 2 * GIB
    detail = f"{machine.memory_free / GIB:.1f} GiB available, {needed / GIB:.1f} GiB needed"
    if machine.memory_free >= needed:
        yield Finding("memory", Level.OK, detail)
    else:
        yield Finding("memory", Level.WARN, detail, "a smaller model: agent-loop model use gemma3n:e2b")


def gpu(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """Driver, container runtime and cgroup driver, where a card is asked for or there."""
    if not machine.gpus:
        if wanted.gpu:
            yield Finding("gpu", Level.FAIL, "no NVIDIA card answers nvidia-smi", "install the driver, or: --gpu off")
        else:
            yield Finding("gpu", Level.OK, "none; models run on the CPU")
        return
    if "nvidia" not in machine.runtimes and not machine.cdi:
        fix = "install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker"
        level = Level.FAIL if wanted.gpu else Level.WARN
        yield Finding("gpu", level, f"{machine.gpus[0]}, but containers cannot reach it", fix)
        return
    yield Finding("gpu", Level.OK, ", ".join(machine.gpus))
    if machine.cgroup_driver == "systemd":
        fix = '"exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json'
        yield Finding("gpu stays", Level.WARN, "systemd cgroups: a daemon-reload can take the card away", fix)


def subnets(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """The stack's networks overlap nothing that the machine already routes."""
    for text in wanted.subnets:
        subnet = ipaddress.ip_network(text)
        # Engines before 26 took a subnet with bits of a host, such as 172.20.0.1/16, and keep it.
        taken = ((route, ipaddress.ip_network(route.subnet, strict=False)) for route in machine.routes)
        clash = next((route for route, other in taken if subnet.overlaps(other)), None)
        if clash is None or clash.owner == "this stack":
            yield Finding(f"subnet {text}", Level.OK, "free")
        else:
            fix = "set AGENT_NETWORK_SUBNET (or TRAINING_NETWORK_SUBNET) to a free one, such as 172.30.0.0/16"
            yield Finding(f"subnet {text}", Level.FAIL, f"overlaps {clash.subnet} of {clash.owner}", fix)


def registry(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """A registry in reach, or the way without one."""
    if machine.registry or wanted.offline:
        yield Finding("registry", Level.OK, "reachable" if machine.registry else "not needed (offline)")
    else:
        yield Finding("registry", Level.WARN, "out of reach", "agent-loop up --offline builds what it can")


def model(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """The served model is there."""
    if wanted.offline:
        yield Finding("model", Level.OK, "the demo model that travels with the repository")
    elif machine.model_present:
        yield Finding("model", Level.OK, wanted.model)
    else:
        yield Finding("model", Level.WARN, f"{wanted.model} is not pulled", "agent-loop init")


def clock(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """A clock that certificates and tokens can live with."""
    skew = machine.clock_skew
    if skew is None:
        yield Finding("clock", Level.OK, "not compared: nothing to ask")
    elif abs(skew) > 60:
        yield Finding("clock", Level.WARN, f"{skew:+.0f} s from a server's", "turn on time synchronisation")
    else:
        yield Finding("clock", Level.OK, f"{skew:+.0f} s")


def files(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """Enough open files for many streams at once."""
    if machine.open_files >= OPEN_FILES:
        yield Finding("open files", Level.OK, str(machine.open_files))
    else:
        yield Finding("open files", Level.WARN, f"limit {machine.open_files}", f"ulimit -n {OPEN_FILES} before 'up'")


def permissions(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    """Containers can read what they are given of the checkout; a desktop engine shows them its files as their own."""
    if machine.unreadable and not machine.desktop:
        first, *others = machine.unreadable
        more = f" and {len(others)} more" if others else ""
        detail = f"containers cannot read {first}{more}: a clone under umask 077"
        yield Finding("permissions", Level.FAIL, detail, f"in {ROOT}: chmod -R o+rX {' '.join(mounted.SOURCES)}")


CHECKS: tuple[Check, ...] = (
    engine,
    compose,
    platform,
    ports,
    disk,
    memory,
    gpu,
    subnets,
    registry,
    model,
    clock,
    files,
    permissions,
)


def examine(machine: Machine, wanted: Wanted) -> list[Finding]:
    """Every finding of every check, in the table's order."""
    return [finding for check in CHECKS for finding in check(machine, wanted)]


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version such as 2.26.1-4: (2, 26, 1)."""
    numbers: list[int] = []
    for part in text.lstrip("v").replace("-", ".").replace("+", ".").split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
