"""A network with a subnet of its own is there before compose gives the others what is free."""

from __future__ import annotations

import json
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
    assert list(there) == [f"{OWNER}_agent-network"]
    told = json.loads(docker("network", "inspect", *there.values()))[0]
    assert [pool["Subnet"] for pool in told["IPAM"]["Config"]] == [SUBNET]
    assert told["Labels"] == {"com.docker.compose.network": "agent-network", "com.docker.compose.project": OWNER}
    assert networks.launch(stack, "ps") == 0
    assert made() == there


@pytest.mark.parametrize("own", ["!override {external: true, name: bridge}", "{internal: true}"])
def test_a_persons_own_network_is_left_to_compose(stack: Project, own: str) -> None:
    """Where an override says more of the network than a subnet, compose makes it, or finds it elsewhere."""
    stack.override.write_text(f"networks: {{agent-network: {own}}}")
    assert networks.launch(stack, "ps") == 0
    assert made() == {}


def test_a_taken_subnet_is_named(stack: Project) -> None:
    """The person reads network, subnet and the way out."""
    docker("network", "create", "--subnet", SUBNET, f"{OWNER}-other")
    with pytest.raises(
        NotReady, match=rf"{OWNER}_agent-network with subnet {SUBNET} cannot be made: .*overlaps.*doctor"
    ):
        networks.launch(stack, "ps")
