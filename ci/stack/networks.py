"""Networks are made before compose makes them: first those with a subnet of their own, then the others.

Compose makes networks in no order. One without a subnet gets the next free one of the engine, which may be the very one
that another names: compose then fails with "Pool overlaps", and so does every later try, since the first stays. An
engine that has no subnet left is told apart from a container that does not start.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.stack import project
from ci.stack.errors import NotReady
from ci.stack.project import Project

SERVING = ("agent-network", "backend")
NETWORKS = {"dev": SERVING, "prod": (*SERVING, "edge"), "train": ("training-network",)}
"""What a mode always has."""


@dataclass(frozen=True)
class Network:
    """A network that is as the engine makes them, but for what stands here."""

    key: str
    """Its key in the compose files."""
    name: str
    subnets: tuple[str, ...]
    internal: bool


def launch(stack: Project, *words: str, more: Sequence[Path] = ()) -> int:
    """Run compose for words that start containers, and so may make networks; return its status.

    Raises NotReady when the subnet of a network is taken, or the engine has none left.
    """
    if not _there(*(f"{project.name(stack.mode)}_{key}" for key in NETWORKS[stack.mode])):
        for network in sorted(_plain(stack), key=lambda network: not network.subnets):
            _make(stack, network)
    return stack.compose(*words, more=more).returncode


def _plain(stack: Project) -> Iterator[Network]:
    """The networks of which the compose files say nothing that takes compose to make them."""
    told = stack.compose("config", "--format", "json", capture=True)
    if told.returncode != 0:
        return  # the command to come fails too, and says why
    for key, network in json.loads(told.stdout).get("networks", {}).items():
        ipam = _said(network.get("ipam"))
        pools = [_said(pool) for pool in ipam.get("config", [])]
        known = set(_said(network)) <= {"name", "ipam", "internal"} and set(ipam) <= {"config"}
        if known and all(set(pool) == {"subnet"} for pool in pools):
            subnets = tuple(pool["subnet"] for pool in pools)
            yield Network(key, network["name"], subnets, bool(network.get("internal")))


def _said(part: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is set; versions of compose differ in whether they write down what is not."""
    return {name: value for name, value in (part or {}).items() if value}


def _make(stack: Project, network: Network) -> None:
    """Make a network with the labels by which compose knows its own."""
    labels = {"com.docker.compose.project": project.name(stack.mode), "com.docker.compose.network": network.key}
    words = [f"--subnet={subnet}" for subnet in network.subnets]
    words += [f"--label={label}={value}" for label, value in labels.items()]
    words += ["--internal"] if network.internal else []
    made = subprocess.run(
        ["docker", "network", "create", *words, network.name], capture_output=True, text=True, check=False
    )
    if made.returncode == 0 or _there(network.name):
        return
    said = made.stderr.strip().rstrip(".")
    if network.subnets:
        raise NotReady(
            f"Network {network.name} with subnet {', '.join(network.subnets)} cannot be made: {said}."
            " 'agent-loop doctor' says who has the subnet and what moves ours."
        )
    if "address pool" in said:
        raise NotReady(
            f"Network {network.name} cannot be made: the engine has no subnet left for it ({said})."
            " 'docker network prune' removes networks that nothing uses;"
            " default-address-pools in /etc/docker/daemon.json gives it more."
        )
    raise NotReady(f"Network {network.name} cannot be made: {said}. See to it, and run it again.")


def _there(*names: str) -> bool:
    return subprocess.run(["docker", "network", "inspect", *names], capture_output=True, check=False).returncode == 0
