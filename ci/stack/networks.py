"""Networks with a subnet of their own are made before compose makes the others.

Compose makes networks in no order. One without a subnet gets the next free one of the engine, which may be the very one
that another names: compose then fails with "Pool overlaps", and so does every later try, since the first stays.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ci.stack import project
from ci.stack.errors import NotReady
from ci.stack.project import Project

NETWORK = {"dev": "agent-network", "prod": "agent-network", "train": "training-network"}
"""The network of a mode that has a subnet."""


def launch(stack: Project, *words: str, more: Sequence[Path] = ()) -> int:
    """Run compose for words that start containers, and so may make networks; return its status.

    Raises NotReady when the subnet of a network is taken.
    """
    if not _there(f"{project.name(stack.mode)}_{NETWORK[stack.mode]}"):
        for key, name, subnets in _with_subnets(stack):
            _make(stack, key, name, subnets)
    return stack.compose(*words, more=more).returncode


def _with_subnets(stack: Project) -> Iterator[tuple[str, str, list[str]]]:
    """Key, name and subnets of the networks that have subnets and are otherwise as the engine makes them."""
    told = stack.compose("config", "--format", "json", capture=True)
    if told.returncode != 0:
        return  # the command to come fails too, and says why
    for key, network in json.loads(told.stdout).get("networks", {}).items():
        pools = network.get("ipam", {}).get("config") or []
        if pools and set(network) == {"name", "ipam"} and all(set(pool) == {"subnet"} for pool in pools):
            yield key, network["name"], [pool["subnet"] for pool in pools]


def _make(stack: Project, key: str, name: str, subnets: list[str]) -> None:
    """Make a network with the labels by which compose knows its own."""
    labels = {"com.docker.compose.project": project.name(stack.mode), "com.docker.compose.network": key}
    words = [f"--subnet={subnet}" for subnet in subnets] + [f"--label={k}={value}" for k, value in labels.items()]
    made = subprocess.run(["docker", "network", "create", *words, name], capture_output=True, text=True, check=False)
    if made.returncode != 0 and not _there(name):
        raise NotReady(
            f"Network {name} with subnet {', '.join(subnets)} cannot be made: {made.stderr.strip()}."
            " 'agent-loop doctor' says who has the subnet and what moves ours."
        )


def _there(name: str) -> bool:
    return subprocess.run(["docker", "network", "inspect", name], capture_output=True, check=False).returncode == 0
