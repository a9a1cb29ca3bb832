"""The served model: pulled by `up` where it is missing and can be had, and as large as its registry says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.stack import doctor, machine, models, reach, up
from ci.stack.doctor import Level
from ci.stack.project import Project
from ci.stack.up import Context
from ci.stack.wanted import GIB, Wanted
from tests.stack.test_doctor import HEALTHY, found

MANIFESTS = {
    "/v2/library/gemma3n/manifests/e4b": {"layers": [{"size": 7_547_579_904}, {"size": 358}, {"size": 8_432}]},
    "/v2/library/small/manifests/latest": {"layers": [{"size": 10}]},
    "/v2/mine/tuned/manifests/q8": {"layers": [{"size": 20}]},
    "/v2/library/odd/manifests/latest": ["no manifest"],
}


@pytest.fixture(scope="module")
def library() -> Iterator[str]:
    """A registry of models with these manifests."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = MANIFESTS.get(self.path)
            body = json.dumps(found).encode() if found else b"{}"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("gemma3n:e4b", 7_547_588_694),
        ("small", 10),
        ("mine/tuned:q8", 20),
        ("small:other", None),
        ("odd", None),
        ("hub.example/some/model", None),
    ],
)
def test_a_model_is_as_large_as_its_manifest_says(model: str, size: int | None, library: str) -> None:
    """The sum of its layers; nothing where the registry has no such model, or it is another's."""
    assert reach.model_size(model, library) == size


@given(st.text())
def test_no_name_is_an_error(library: str, model: str) -> None:
    """Whatever stands in AGENT_LOOP_MODEL, reading the machine goes on."""
    assert reach.model_size(model, library) in (None, 10, 20, 7_547_588_694)


def test_the_disk_is_measured_against_that_model() -> None:
    """Room for a small one is no room for a large one, and one that is there takes none."""
    room = replace(HEALTHY, disk_free=14 * GIB, model_present=False)
    assert found(replace(room, model_size=2 * GIB))["disk"].level is Level.OK
    assert found(replace(room, model_size=20 * GIB))["disk"].level is Level.FAIL
    assert found(replace(room, model_size=20 * GIB, model_present=True))["disk"].level is Level.OK
    assert "22.0 GiB needed" in next(
        line.detail for line in doctor.memory(replace(room, model_size=20 * GIB), Wanted())
    )


class TestUp:
    """The last step of `up`."""

    @pytest.fixture(autouse=True)
    def nothing_pulled(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """An Ollama without a model, and a note of what is pulled."""
        pulled: list[str] = []
        monkeypatch.setattr(machine, "model_present", lambda name, model: model in pulled)
        monkeypatch.setattr(models, "pull", lambda stack, model: pulled.append(model))
        for name in ("AGENT_LOOP_MODEL", "AGENT_LOOP_BACKEND", "AGENT_LOOP_OLLAMA_URL"):
            monkeypatch.delenv(name, raising=False)
        return pulled

    def test_pulls_what_is_missing_once(self, nothing_pulled: list[str], tmp_path: Path) -> None:
        """The model that is served, and not again where it is there."""
        said: list[str] = []
        for _ in range(2):
            up.pull_model(Project(state=tmp_path), Context(said.append, lambda lines: None))
        assert nothing_pulled == ["gemma3n:e4b"]
        assert len(said) == 1
        assert said[0].startswith("Pulling gemma3n:e4b; everything else runs.")

    @pytest.mark.parametrize("case", ["offline", "training", "another backend", "another Ollama", "deployed"])
    def test_pulls_nothing_that_no_registry_has(
        self, case: str, nothing_pulled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A demo model, a training stack, another's models, one that `deploy` served."""
        if case == "another backend":
            monkeypatch.setenv("AGENT_LOOP_BACKEND", "openai")
        if case == "another Ollama":
            monkeypatch.setenv("AGENT_LOOP_OLLAMA_URL", "http://host.docker.internal:11434")
        if case == "deployed":
            record = {"model": "agent-loop:3f2a91c07d1e", "digest": "sha256:3f", "backend": "ollama"}
            (tmp_path / "served-model.json").write_text(json.dumps(record))
        stack = Project("train" if case == "training" else "dev", offline=case == "offline", state=tmp_path)
        up.pull_model(stack, Context(lambda line: None, lambda lines: None))
        assert nothing_pulled == []

    def test_comes_after_the_addresses(self) -> None:
        """They are told before: everything else runs while a model comes (`test_turns` holds that it is the last)."""
        assert up.STEPS[-1] is up.report
