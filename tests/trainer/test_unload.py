"""Memory that Ollama holds: let go before planning when asked, or on a yes; the plan then has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.fakes.nvml import Card, FakeNvml
from tests.trainer.recorded_ollama import RecordedOllama
from trainer import unload
from trainer.cli import app
from trainer.export.errors import DeployError
from trainer.ollama import Ollama

GIB = 1 << 30
QUIET = "127.0.0.1:9"
"""Where no Ollama listens."""


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedOllama]:
    """An Ollama with a model on a card of 24 GiB, of which 4 are left."""
    card = Card(used=20 * GIB)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([card]))
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    with RecordedOllama() as server:
        server.holds["gemma3n:latest"] = 19 * GIB
        server.on_unload = lambda name: setattr(card, "used", 1 * GIB)
        yield server


def plan(*words: str) -> Result:
    """A dry run of the 9B preset, whose sizes are known without the hub: it needs about 12 GiB."""
    return CliRunner().invoke(app, ["train", "--dry-run", "--model", "gemma-9b", *words])


def test_unload_makes_the_plan_fit(ollama: RecordedOllama) -> None:
    """Without --unload the run does not fit and the error says the word; with it the model leaves and it fits."""
    refused = plan("--ollama", ollama.url)
    assert refused.exit_code == 4
    assert "Ollama keeps gemma3n:latest (19.0 GiB) on the card. --unload lets it go" in refused.output
    assert "--unload lets Ollama's models go" in refused.output
    assert ollama.holds
    fits = plan("--ollama", ollama.url, "--unload")
    assert fits.exit_code == 0, fits.output
    assert "Unloaded gemma3n:latest." in fits.output
    assert "of 23.0 GiB on NVIDIA GeForce RTX 4090" in fits.output
    assert ("POST", "/api/generate", {"model": "gemma3n:latest", "keep_alive": 0}) in ollama.sent


def test_a_person_is_asked(ollama: RecordedOllama) -> None:
    """A no leaves everything as it is; a yes unloads, and waits until the model is listed no more."""
    asked: list[str] = []
    said: list[str] = []
    with Ollama(ollama.url) as client:
        for answer in (False, True):
            left = unload.offer(client, asked=False, ask=lambda q, a=answer: (asked.append(q), a)[1], say=said.append)  # type: ignore[misc]
            assert left is answer
            assert bool(ollama.holds) is not answer
    assert asked == ["Ollama keeps gemma3n:latest (19.0 GiB) on the card. Unload it and plan with that memory?"] * 2
    assert said == ["Unloaded gemma3n:latest."]
    assert [path for _, path, _ in ollama.sent][-3:] == ["/api/generate", "/api/ps", "/api/ps"]


def test_nothing_to_unload_is_no_error(ollama: RecordedOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ollama, or one without a model: said when it was asked for, silent when not."""
    monkeypatch.setattr(unload, "CONTAINER", ())
    said: list[str] = []
    ollama.holds.clear()
    with Ollama(QUIET) as client:
        assert not unload.offer(client, asked=True, ask=None, say=said.append)
    assert said == [f"Nothing to unload: no Ollama answers at http://{QUIET} (--ollama names another)."]
    assert "holds no model" in plan("--card", "rtx-4090", "--unload", "--ollama", ollama.url).output
    assert "Ollama" not in plan("--card", "rtx-4090", "--ollama", ollama.url).output


def test_an_ollama_out_of_reach_is_told_before_training(
    ollama: RecordedOllama, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--unload that cannot do it ends the command: the address was named, or the training container has its own
    127.0.0.1. Without --unload nobody is bothered."""
    monkeypatch.setattr(unload, "CONTAINER", ())
    done = plan("--unload", "--ollama", QUIET)
    assert done.exit_code == 24
    assert f"--unload cannot reach Ollama from here, http://{QUIET}" in done.output
    monkeypatch.setattr(unload, "CONTAINER", (tmp_path / "none", tmp_path))
    monkeypatch.setattr("trainer.ollama.DEFAULT_URL", f"http://{QUIET}")
    done = plan("--unload")
    assert done.exit_code == 24
    assert "from this container" in done.output
    assert "cannot reach" not in plan().output


def test_a_plan_for_another_card_disturbs_nobody(ollama: RecordedOllama) -> None:
    """A plan for a named card, or for the CPU, asks Ollama nothing."""
    plan("--card", "rtx-4090", "--ollama", ollama.url)
    plan("--device", "cpu", "--ollama", ollama.url)
    assert ollama.sent == []


def test_a_model_that_stays_is_an_error(ollama: RecordedOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer keeps the model: after a while the message names it."""
    monkeypatch.setattr(unload, "SECONDS", 0.0)
    ollama.on_unload = lambda name: ollama.holds.update({name: 19 * GIB})
    with Ollama(ollama.url) as client, pytest.raises(DeployError, match=r"Still in use after 0 s, gemma3n:latest"):
        unload.offer(client, asked=True, ask=None, say=print)
