"""Deployment: nothing that is served changes until the new model has answered, and one step back is always there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.trainer.recorded_ollama import RecordedOllama, recorded
from trainer import demo, served
from trainer.deploy import LINK, app
from trainer.export import gguf, modelfile

QUIET = "127.0.0.1:9"
"""Where no Ollama listens."""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENT_LOOP_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    return tmp_path / "state"


@pytest.fixture
def ollama() -> Iterator[RecordedOllama]:
    with RecordedOllama() as server:
        yield server


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two exported runs: the demo model, and the same with one byte of its padding changed."""
    for name, tail in (("one", b""), ("two", b"\0")):
        export = tmp_path / "runs" / name / "export"
        export.mkdir(parents=True)
        (export.parent / "config.json").write_text("{}")
        path = export / "model-Q8_0.gguf"
        shutil.copyfile(demo.FILE, path)
        with path.open("ab") as file:
            file.write(tail)
        entry = {"file": path.name, "kind": "q8_0", "digest": gguf.digest(path), "verification": {"problems": []}}
        (export / "export.json").write_text(json.dumps({"run": name, "verified": True, "files": [entry]}))
    return tmp_path / "runs"


def deploy(*words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["deploy", *(str(w) for w in words)])
    assert done.exit_code == code, done.output
    return done


def digest(runs: Path, name: str) -> str:
    return json.loads((runs / name / "export" / "export.json").read_text())["files"][0]["digest"]


class TestLlamaCpp:
    def test_there_and_back(self, runs: Path, state: Path) -> None:
        """The file is copied, answers in llama.cpp, and the link moves to it; back moves the link back."""
        done = deploy("one", "--output", runs, "--to", "llamacpp")
        assert "answered: I answer short questions about Agent Loop" in done.output
        assert f"AGENT_LOOP_GGUF={state / LINK}" in done.output
        shutil.rmtree(runs / "one")  # what is served does not need the run any more
        assert gguf.digest(state / LINK) == gguf.digest(demo.FILE)
        done = deploy("two", "--output", runs, "--to", "llamacpp")
        assert "Before: agent-loop of run one" in done.output
        assert gguf.digest(state / LINK) == digest(runs, "two")
        assert "of run one again" in deploy("--rollback").output
        assert gguf.digest(state / LINK) == gguf.digest(demo.FILE)
        found = served.read()
        assert found is not None
        assert found.previous is not None
        assert (found.run, found.previous.run) == ("one", "two")

    def test_the_link_survives_another_mount_point(self, runs: Path, state: Path, tmp_path: Path) -> None:
        """A container that mounts the state folder elsewhere follows the link too."""
        deploy("one", "--output", runs, "--to", "llamacpp")
        moved = state.rename(tmp_path / "elsewhere")
        assert (moved / LINK).is_file()

    @pytest.mark.parametrize(
        ("started", "line"),
        [
            ("MODE=dev\nOFFLINE=1\nGPU=0\nLOGS=0\n", "agent-loop up --offline"),
            ("# a comment\nMODE=prod\nOFFLINE=0\nGPU=1\nLOGS=1\n", "agent-loop up prod --logs"),
        ],
    )
    def test_a_stack_takes_it_with_up(self, runs: Path, state: Path, started: str, line: str) -> None:
        """Where a stack was started here the next step is its own `up`, on the way back too, and no other server."""
        state.mkdir()
        (state / "project.env").write_text(started)
        for words in (("one", "--output", runs, "--to", "llamacpp"), ("two", "--output", runs, "--to", "llamacpp")):
            done = deploy(*words)
            assert f"Take it into the stack: {line}\n" in done.output
            assert "agent-loop serve" not in done.output
        assert f"Take it into the stack: {line}\n" in deploy("--rollback").output

    def test_without_a_stack_a_server_takes_it(self, runs: Path, state: Path) -> None:
        """The whole line that starts it."""
        settings = f"AGENT_LOOP_BACKEND=llamacpp AGENT_LOOP_GGUF={state / LINK} AGENT_LOOP_MODEL=agent-loop"
        done = deploy("one", "--output", runs, "--to", "llamacpp")
        assert f"Start the service with it: {settings} agent-loop serve\n" in done.output

    def test_a_file_that_does_not_load(self, runs: Path, state: Path) -> None:
        """What was served stays: record and link are as before, and the status is 24."""
        deploy("one", "--output", runs, "--to", "llamacpp")
        before = (state / served.FILE).read_bytes()
        path = runs / "two" / "export" / "model-Q8_0.gguf"
        path.write_bytes(b"GGUF" + bytes(100))
        report = runs / "two" / "export" / "export.json"
        report.write_text(report.read_text().replace(digest(runs, "two"), gguf.digest(path)))
        assert "cannot load the file" in deploy("two", "--output", runs, "--to", "llamacpp", code=24).stderr
        assert (state / served.FILE).read_bytes() == before
        assert gguf.digest(state / LINK) == digest(runs, "one")


class TestOllama:
    def test_uploads_creates_asks_and_names(self, runs: Path, ollama: RecordedOllama) -> None:
        """One upload, a tag of the digest with our template and parameters, one question, then the served name."""
        done = deploy("one", "--output", runs, "--ollama", ollama.url)
        assert "target: ollama" in done.output
        assert "Start the service with it: AGENT_LOOP_MODEL=agent-loop agent-loop serve\n" in done.output
        tag = f"agent-loop:{digest(runs, 'one')[7:19]}"
        assert ollama.names == {tag: digest(runs, "one"), "agent-loop": digest(runs, "one")}
        (create,) = (body for _, path, body in ollama.sent if path == "/api/create")
        assert create["template"] == modelfile.TEMPLATE
        assert create["parameters"]["stop"] == ["<end_of_turn>", "<start_of_turn>"]
        assert create["parameters"]["repeat_penalty"] == 1.0
        paths = [path for _, path, _ in ollama.sent if path.startswith("/api/c")]
        assert paths == ["/api/create", "/api/chat", "/api/copy"]  # nothing is served before it has answered
        deploy("one", "--output", runs, "--ollama", ollama.url)
        uploads = [path for method, path, _ in ollama.sent if method == "POST" and "/blobs/" in path]
        assert len(uploads) == 1  # Ollama resets whoever sends a blob again

    def test_back(self, runs: Path, ollama: RecordedOllama) -> None:
        """The served name is copied from the earlier tag again; a tag that Ollama lost is told."""
        deploy("one", "--output", runs, "--ollama", ollama.url)
        deploy("two", "--output", runs, "--ollama", ollama.url)
        assert ollama.names["agent-loop"] == digest(runs, "two")
        deploy("--rollback", "--ollama", ollama.url)
        assert ollama.names["agent-loop"] == digest(runs, "one")
        del ollama.names[f"agent-loop:{digest(runs, 'two')[7:19]}"]
        assert "any more" in deploy("--rollback", "--ollama", ollama.url, code=24).stderr
        assert ollama.names["agent-loop"] == digest(runs, "one")

    @pytest.mark.parametrize("failure", ["blob_post_wrong_digest", "create_not_gguf", "create_bad_template"])
    def test_a_refusal_is_in_ollamas_words(self, runs: Path, ollama: RecordedOllama, failure: str) -> None:
        """Errors that come under status 200, as the last line, count as errors; the served name is untouched."""
        ollama.fail(failure)
        done = deploy("one", "--output", runs, "--ollama", ollama.url, code=24)
        reply = recorded(failure)
        said = reply["chunks"][-1]["json"] if "chunks" in reply else reply["body"]
        assert said["error"] in done.stderr
        assert "agent-loop" not in ollama.names
        assert served.read() is None

    def test_a_model_that_says_nothing(self, runs: Path, ollama: RecordedOllama) -> None:
        """An empty answer is no answer."""
        ollama.answer = ""
        assert "no finished answer" in deploy("one", "--output", runs, "--ollama", ollama.url, code=24).stderr
        assert "agent-loop" not in ollama.names

    def test_nobody_there(self, runs: Path) -> None:
        """Asked for by name, an Ollama that does not answer is an error; by default llama.cpp takes its place."""
        assert (
            "No answer from Ollama"
            in deploy("one", "--output", runs, "--to", "ollama", "--ollama", QUIET, code=24).stderr
        )
        assert "target: llamacpp" in deploy("one", "--output", runs, "--ollama", QUIET).output


class TestWhatIsNotDeployed:
    def test_another_family_to_ollama(self, runs: Path, ollama: RecordedOllama) -> None:
        """A model that our TEMPLATE would ask wrongly is not made an Ollama model."""
        report = runs / "one" / "export" / "export.json"
        report.write_text(report.read_text().replace('"verified": true', '"verified": true, "modelfile": false'))
        assert "Gemma's turns" in deploy("one", "--output", runs, "--ollama", ollama.url, code=24).stderr
        assert not ollama.names

    def test_not_exported(self, tmp_path: Path) -> None:
        """A run without an export names the command."""
        assert "agent-loop export" in deploy(tmp_path, "--to", "llamacpp", code=24).stderr

    def test_not_verified(self, runs: Path) -> None:
        """An export that failed its verification is refused with its first problem."""
        report = runs / "one" / "export" / "export.json"
        report.write_text(report.read_text().replace('"problems": []', '"problems": ["Token 3 differs."]'))
        assert "Token 3 differs." in deploy("one", "--output", runs, "--to", "llamacpp", code=24).stderr

    def test_changed_since(self, runs: Path) -> None:
        """A file that is not the one that was verified is refused."""
        with (runs / "one" / "export" / "model-Q8_0.gguf").open("ab") as file:
            file.write(b"x")
        assert "not the one that was verified" in deploy("one", "--output", runs, "--to", "llamacpp", code=24).stderr

    def test_no_step_back(self) -> None:
        """Going back without a previous model says so."""
        assert "no previous model" in deploy("--rollback", code=24).stderr

    def test_an_unreadable_record(self, runs: Path, state: Path) -> None:
        """A record that is no JSON is named before anything is served."""
        state.mkdir()
        (state / served.FILE).write_text("{")
        assert "Delete it and deploy again" in deploy("one", "--output", runs, "--to", "llamacpp", code=24).stderr
