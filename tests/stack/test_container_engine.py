"""An engine that does not answer is told apart: absent, elsewhere, not for this person, or silent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ci.stack import apt, container_engine
from ci.stack.container_engine import EngineError
from tests.command import agent_loop
from tests.fakes.programs import free_port


@pytest.fixture(autouse=True)
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that gets so far fails, whoever runs it."""

    def refused(*words: object) -> None:
        raise AssertionError("an engine would be installed or started here")

    monkeypatch.setattr(apt, "may_install", lambda: True)
    monkeypatch.setattr(container_engine, "_install", refused)
    monkeypatch.setattr(container_engine, "_start", refused)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker command that each test writes, first on the path."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    command = tmp_path / "docker"
    command.touch(0o755)
    return command


def answering(docker: Path, address: str) -> None:
    """Nobody answers at `address`, which the docker command is set to."""
    docker.write_text(f'#!/bin/sh\n[ "$1" = context ] && echo {address}\n[ "$1" != info ]\n')


def test_an_engine_elsewhere_is_named_and_none_is_started_here(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon of this machine would not be the one that is asked."""
    answering(docker, "ssh://server")
    with pytest.raises(EngineError, match=r"answers at ssh://server\. Start it, or .*: docker context use default\."):
        container_engine.ensure(print)
    monkeypatch.setenv("DOCKER_HOST", "ssh://server")
    with pytest.raises(EngineError, match="unset DOCKER_HOST"):
        container_engine.ensure(print)


def test_a_context_that_is_gone_is_named(docker: Path) -> None:
    """With what docker says of it, and the way back."""
    docker.write_text("#!/bin/sh\necho 'context \"old\": not found.' >&2\nexit 1\n")
    with pytest.raises(EngineError, match=r'context "old": not found\. Choose another context: docker context use'):
        container_engine.ensure(print)


def test_a_person_outside_the_group_reads_how_to_join(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is there; installing one is no help."""
    socket = tmp_path / "docker.sock"
    socket.touch()
    monkeypatch.setattr(container_engine, "OWN", (f"unix://{socket}",))
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != socket and allowed(path, mode))
    answering(docker, f"unix://{socket}")
    with pytest.raises(EngineError, match=rf"Not allowed to use .*, {socket}\. Join its group.*usermod -aG docker"):
        container_engine.ensure(print)


def test_an_engine_that_hangs_does_not_answer(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a firewall that drops packets docker waits for good."""
    monkeypatch.setattr(container_engine, "ANSWER_SECONDS", 0.1)
    docker.write_text("#!/bin/sh\nexec sleep 20\n")
    assert container_engine.answers() is None


def test_up_ends_with_that_line_and_the_status_of_a_missing_engine(tmp_path: Path) -> None:
    """No traceback, nothing built, nothing started."""
    host = f"tcp://127.0.0.1:{free_port()}"
    done = agent_loop("up", "--offline", DOCKER_HOST=host, AGENT_LOOP_STATE=str(tmp_path))
    assert done.returncode == 3
    assert f"agent-loop: No container engine answers at {host}. " in done.stderr
