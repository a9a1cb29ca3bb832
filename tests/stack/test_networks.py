"""A network with a subnet of its own is there before compose gives the others what is free."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.stack import networks
from ci.stack.errors import NotReady
from ci.stack.offline import STAND_INS
from ci.stack.project import Project

pytestmark = pytest.mark.containers

OWNER = "al-test-networks"
SUBNET = "172.29.9.0/24"


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def made() -> dict[str, str]:
    """The networks of the project, each with its id."""
    listed = docker("network", "ls", "--filter", f"name={OWNER}", "--format", "{{.Name}} {{.ID}}")
    return dict(line.split() for line in listed.splitlines())


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A stack that was never started."""
    monkeypatch.setenv("AGENT_LOOP_PROJECT", OWNER)
    monkeypatch.setenv("AGENT_NETWORK_SUBNET", SUBNET)
    for variable in ("AGENT_LOOP_IMAGE_RUNTIME", "AGENT_LOOP_IMAGE_DEV", *STAND_INS.values()):
        monkeypatch.setenv(variable, "agent-loop/to-be-built")
    yield Project("dev", offline=True, state=tmp_path)
    for name in made():
        docker("network", "rm", name)


def test_compose_finds_its_network_made(stack: Project) -> None:
    """It has the chosen subnet and the labels by which compose takes it for its own, and stays as it is."""
    assert networks.launch(stack, "ps") == 0
    there = made()
    assert sorted(there) == [f"{OWNER}_agent-network", f"{OWNER}_backend"]
    told, backend = json.loads(docker("network", "inspect", *sorted(there)))
    assert [pool["Subnet"] for pool in told["IPAM"]["Config"]] == [SUBNET]
    assert (told["Internal"], backend["Internal"]) == (False, True)
    for key, network in (("agent-network", told), ("backend", backend)):
        assert network["Labels"] == {"com.docker.compose.network": key, "com.docker.compose.project": OWNER}
    assert networks.launch(stack, "ps") == 0
    assert made() == there


@pytest.mark.parametrize("own", ["!override {external: true, name: bridge}", "{attachable: true}"])
def test_a_persons_own_network_is_left_to_compose(stack: Project, own: str) -> None:
    """Where an override says more of the network than a subnet, compose makes it, or finds it elsewhere."""
    stack.override.write_text(f"networks: {{agent-network: {own}}}")
    assert networks.launch(stack, "ps") == 0
    assert list(made()) == [f"{OWNER}_backend"]


def test_what_was_made_halfway_is_completed(stack: Project) -> None:
    """Whichever network an earlier try, or another compose, got to make."""
    docker("network", "create", "--subnet", SUBNET, f"{OWNER}_agent-network")
    assert networks.launch(stack, "ps") == 0
    assert sorted(made()) == [f"{OWNER}_agent-network", f"{OWNER}_backend"]


@pytest.mark.parametrize(
    "said",
    [
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        "all predefined address pools have been fully subnetted",
    ],
)
def test_an_engine_without_a_free_subnet_is_told_apart(
    said: str, stack: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two versions of it put it: the person reads which network it was and what makes room."""
    real = shutil.which("docker")
    command = tmp_path / "bin" / "docker"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\ncase "$*" in "network create"*_backend) echo "Error response from daemon: {said}" >&2; exit 1;;'
        f' *) exec {real} "$@";; esac\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    with pytest.raises(NotReady, match=rf"{OWNER}_backend cannot be made: .*no subnet left .*{said}.*network prune"):
        networks.launch(stack, "ps")


def test_a_taken_subnet_is_named(stack: Project) -> None:
    """The person reads network, subnet and the way out."""
    docker("network", "create", "--subnet", SUBNET, f"{OWNER}-other")
    with pytest.raises(
        NotReady, match=rf"{OWNER}_agent-network with subnet {SUBNET} cannot be made: .*overlaps.*doctor"
    ):
        networks.launch(stack, "ps")
