"""Each failure the field knows of is one line of `doctor`, with its fix."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.stack import doctor, machine, mounted
from ci.stack.doctor import Finding, Level
from ci.stack.errors import UsageError
from ci.stack.machine import Machine, Route
from ci.stack.wanted import GIB, Wanted, wanted_by

HEALTHY = Machine(
    engine="26.1.5",
    compose="2.26.1-4",
    buildx="0.13.1",
    disk_free=200 * GIB,
    state_free=GIB,
    memory_free=32 * GIB,
    registry=True,
    model_present=True,
    clock_skew=0.2,
    open_files=20_000,
)


def found(snapshot: Machine, wanted: Wanted | None = None) -> dict[str, Finding]:
    """The findings by check."""
    return {finding.check: finding for finding in doctor.examine(snapshot, wanted or Wanted())}


def test_a_healthy_machine_has_nothing_to_mend() -> None:
    """Every line is ok and none offers a fix."""
    lines = found(HEALTHY)
    assert {line.level for line in lines.values()} == {Level.OK}
    assert all(not line.fix for line in lines.values())


BROKEN = {
    "no engine": (replace(HEALTHY, engine=None), "engine", Level.FAIL, "agent-loop setup"),
    "old engine": (replace(HEALTHY, engine="20.10.24"), "engine", Level.FAIL, "upgrade Docker"),
    "no compose": (replace(HEALTHY, compose=None), "compose", Level.FAIL, "agent-loop setup"),
    "old compose": (replace(HEALTHY, compose="2.5.0"), "compose", Level.FAIL, "upgrade docker-compose"),
    "no buildx": (replace(HEALTHY, buildx=None), "buildx", Level.FAIL, "agent-loop setup"),
    "old image store": (replace(HEALTHY, containerd_store=False), "image store", Level.WARN, "containerd-snapshotter"),
    "Podman": (replace(HEALTHY, podman=True), "platform", Level.WARN, "docs/install.md"),
    "Apple silicon": (
        replace(HEALTHY, desktop=True, architecture="aarch64"),
        "platform",
        Level.WARN,
        "docs/install.md",
    ),
    "port taken": (replace(HEALTHY, listening={3000: "node (pid 7)"}), "port 3000", Level.FAIL, "GRAFANA_PORT"),
    "disk full": (replace(HEALTHY, disk_free=2 * GIB), "disk", Level.FAIL, "agent-loop clean"),
    "state folder full": (replace(HEALTHY, state_free=1000), "state folder", Level.FAIL, "AGENT_LOOP_STATE"),
    "little memory": (replace(HEALTHY, memory_free=3 * GIB), "memory", Level.WARN, "a smaller model"),
    "toolkit missing": (replace(HEALTHY, gpus=("RTX 4090",)), "gpu", Level.WARN, "nvidia-ctk"),
    "card lost later": (
        replace(HEALTHY, gpus=("RTX 4090",), runtimes=("nvidia",), cgroup_driver="systemd"),
        "gpu stays",
        Level.WARN,
        "native.cgroupdriver=cgroupfs",
    ),
    "subnet taken": (
        replace(HEALTHY, routes=(Route("172.20.4.0/24", "interface vpn0"),)),
        "subnet 172.20.0.0/16",
        Level.FAIL,
        "AGENT_NETWORK_SUBNET",
    ),
    "no registry": (replace(HEALTHY, registry=False), "registry", Level.WARN, "--offline"),
    "model missing": (replace(HEALTHY, model_present=False), "model", Level.WARN, "agent-loop init"),
    "clock off": (replace(HEALTHY, clock_skew=-900.0), "clock", Level.WARN, "time synchronisation"),
    "subnet taken by a network of an older engine": (
        replace(HEALTHY, routes=(Route("172.20.0.1/16", "Docker network old"),)),
        "subnet 172.20.0.0/16",
        Level.FAIL,
        "AGENT_NETWORK_SUBNET",
    ),
    "private files": (
        replace(HEALTHY, unreadable=("observability/slo.yml", "service")),
        "permissions",
        Level.FAIL,
        "chmod -R o+rX observability service",
    ),
    "few files": (replace(HEALTHY, open_files=1024), "open files", Level.WARN, "ulimit"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_thing_broken_is_one_line_with_its_fix(case: str) -> None:
    """The broken thing, and nothing else, is reported at its level and with what to do."""
    snapshot, check, level, fix = BROKEN[case]
    lines = found(snapshot)
    assert lines[check].level is level
    assert fix in lines[check].fix
    assert [line.check for line in lines.values() if line.level is not Level.OK] == [check]


def test_a_card_that_is_asked_for_must_work() -> None:
    """`--gpu on` turns a missing card, or one that containers cannot reach, from a remark into a failure."""
    assert found(HEALTHY, Wanted(gpu=True))["gpu"].level is Level.FAIL
    assert found(replace(HEALTHY, gpus=("RTX 4090",)), Wanted(gpu=True))["gpu"].level is Level.FAIL
    assert found(replace(HEALTHY, gpus=("RTX 4090",), cdi=True), Wanted(gpu=True))["gpu"].level is Level.OK


def test_offline_asks_for_no_registry_and_no_model() -> None:
    """Without a registry the demo model serves, and little memory is enough."""
    poor = replace(HEALTHY, registry=False, model_present=False, memory_free=2 * GIB, disk_free=11 * GIB)
    assert {line.level for line in found(poor, Wanted(offline=True)).values()} == {Level.OK}


def test_a_stack_comes_back_on_a_disk_that_it_filled() -> None:
    """Where its images are there, room for metrics and logs is enough; without them, or with one missing, it is not."""
    little = replace(HEALTHY, disk_free=3 * GIB)
    held = frozenset({"AGENT_LOOP_IMAGE_RUNTIME", "AGENT_LOOP_IMAGE_DEV", "AGENT_LOOP_IMAGE_PROMETHEUS"})
    assert found(replace(little, images=held))["disk"].level is Level.OK
    assert found(replace(little, images=held - {"AGENT_LOOP_IMAGE_DEV"}))["disk"].level is Level.FAIL
    training = wanted_by("train", "auto", True)
    assert found(replace(little, images=held), training)["disk"].level is Level.FAIL


def test_our_own_containers_are_no_clash() -> None:
    """A running stack holds its ports and its subnet rightly."""
    running = replace(HEALTHY, listening={8000: "this stack"}, routes=(Route("172.20.0.0/16", "this stack"),))
    assert {line.level for line in found(running).values()} == {Level.OK}


def test_a_moved_port_is_named_by_what_moved_it() -> None:
    """The fix is the variable of that very port, wherever it was moved to."""
    taken = replace(HEALTHY, listening={9999: "node (pid 7)"})
    assert "PROMETHEUS_PORT" in found(taken, Wanted(ports={"PROMETHEUS_PORT": 9999}))["port 9999"].fix


def test_two_of_ours_on_one_port_are_both_named() -> None:
    """Before any container finds out."""
    line = found(HEALTHY, Wanted(ports={"HTTP_PORT": 8443, "HTTPS_PORT": 8443}))["port 8443"]
    assert line.level is Level.FAIL
    assert line.detail == "wanted by HTTP_PORT and HTTPS_PORT"


def test_a_real_listener_is_named() -> None:
    """Reading this machine: a program that listens is found with its process, a free port is not."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        holder = machine.holder_of(port, "agent-loop-none")
        assert holder is not None
        assert "pid" in holder or holder == "another program"
    assert machine.holder_of(port, "agent-loop-none") is None


def test_a_route_that_leads_nowhere_is_a_route() -> None:
    """As a VPN's or an orchestrator's; a container's packet for its network would end there."""
    told = "default via 10.0.0.1 dev eth0\nblackhole 172.16.0.0/12 proto static\n10.0.0.0/24 dev eth0 scope link\n"
    assert list(machine.routes(told)) == [Route("172.16.0.0/12", "a route"), Route("10.0.0.0/24", "interface eth0")]


def test_a_data_root_hidden_from_the_person_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """With user namespaces it lies in a folder that root alone may enter: its disk is asked through a parent."""

    def hidden(place: Path) -> SimpleNamespace:
        if place.is_relative_to("/var/lib/docker/1000.1000"):
            raise PermissionError(13, "Permission denied", str(place))
        return SimpleNamespace(free=len(str(place)))

    monkeypatch.setattr(machine.shutil, "disk_usage", hidden)
    assert machine.free_at("/var/lib/docker/1000.1000") == len("/var/lib/docker")


def test_what_a_private_umask_hides_is_found(tmp_path: Path) -> None:
    """Files and folders that containers need, and nothing else."""
    rules = tmp_path / "observability" / "rules"
    (rules / "__pycache__").mkdir(parents=True)
    for path in (rules / "private.yml", rules / "open.yml", rules / "__pycache__" / "private.pyc", tmp_path / "state"):
        path.touch(0o644 if path.stem == "open" else 0o600)
    assert list(mounted.unreadable(tmp_path)) == [rules / "private.yml"]
    rules.chmod(0o750)
    assert list(mounted.unreadable(tmp_path)) == [rules, rules / "private.yml"]


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value, the variable and the range are in the message."""
    monkeypatch.setenv("GRAFANA_PORT", text)
    with pytest.raises(UsageError, match="GRAFANA_PORT"):
        wanted_by("dev", "auto", False)


@pytest.mark.parametrize("text", ["banana", "172.20.0.5/16", "172.20.0.0/40", "fd00::/64"])
def test_a_network_that_is_none_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value, the variable and one that would do are in the message."""
    monkeypatch.setenv("AGENT_NETWORK_SUBNET", text)
    with pytest.raises(UsageError, match=rf"'{text}' is no IPv4 network .*AGENT_NETWORK_SUBNET.*172\.20\.0\.0/16"):
        wanted_by("prod", "auto", False)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=4), st.sampled_from(["", "-4", "+dfsg1", "-rc.1"]))
def test_versions_compare_by_their_numbers(numbers: list[int], suffix: str) -> None:
    """Whatever a distribution appends, the leading numbers are what is compared."""
    text = ".".join(map(str, numbers)) + suffix
    assert doctor.version(text)[: len(numbers)] == tuple(numbers)
