"""What was deployed is what the next `up` serves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ci.stack import project, served
from ci.stack.errors import UsageError
from ci.stack.project import Project
from trainer.served import Served, write


def deployed(state: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record as the trainer's `deploy` writes it."""
    monkeypatch.setenv("AGENT_LOOP_STATE", str(state))
    write(Served("mine:q8-1234" if backend == "ollama" else "mine", "sha256:1", backend, run="first"))


def test_nothing_deployed_changes_nothing(tmp_path: Path) -> None:
    """No record: no file, no variable."""
    assert served.environment(tmp_path) == {}
    assert "compose.served.yaml" not in [path.name for path in Project(state=tmp_path).files]


def test_llamacpp_takes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overlay that mounts the file, and the digest that makes compose start the agent again."""
    deployed(tmp_path, "llamacpp", monkeypatch)
    stack = Project("prod", offline=True, state=tmp_path)
    assert stack.files[-1].name == "compose.served.yaml"
    assert stack.environment()["AGENT_LOOP_MODEL"] == "mine"
    assert stack.environment()["AGENT_LOOP_SERVED_DIGEST"] == "sha256:1"


def test_ollama_is_asked_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The served name without the deployment's tag, and no file to mount."""
    deployed(tmp_path, "ollama", monkeypatch)
    stack = Project(state=tmp_path)
    assert stack.environment()["AGENT_LOOP_MODEL"] == "mine"
    assert "compose.served.yaml" not in [path.name for path in stack.files]


def test_a_model_chosen_later_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`model use` after a deployment is the newer word."""
    deployed(tmp_path, "llamacpp", monkeypatch)
    project.remember_model(tmp_path, "gemma3:1b")
    record = (tmp_path / "served-model.json").stat().st_mtime
    os.utime(tmp_path / served.CHOSEN, (record + 5, record + 5))
    stack = Project(state=tmp_path)
    assert stack.environment()["AGENT_LOOP_MODEL"] == "gemma3:1b"
    assert "compose.served.yaml" not in [path.name for path in stack.files]


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"model": "x"})])
def test_a_broken_record_is_named(text: str, tmp_path: Path) -> None:
    """With its place and the way out."""
    (tmp_path / "served-model.json").write_text(text)
    with pytest.raises(UsageError, match=r"served-model\.json\. Delete it"):
        served.read(tmp_path)
