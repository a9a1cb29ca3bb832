"""Settings from the environment and secrets from files; what is wrong is told with its variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import settings as configuration
from service.errors import StartupError

pytestmark = pytest.mark.in_image


def test_environment_and_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """AGENT_LOOP_ variables are read, words are split at commas, and arguments win."""
    monkeypatch.setenv("AGENT_LOOP_PORT", "9000")
    monkeypatch.setenv("AGENT_LOOP_TOOLS", "calculator, clock")
    monkeypatch.setenv("AGENT_LOOP_MODEL", "")
    found = configuration.load(host="127.0.0.2")
    assert (found.port, found.tools, found.host, found.model) == (9000, ("calculator", "clock"), "127.0.0.2", "gemma3n")


def test_secrets_come_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AGENT_LOOP_X_FILE is read without its line end, and no secret shows in the settings' text."""
    (tmp_path / "key").write_text("geheim\n")
    monkeypatch.setenv("AGENT_LOOP_API_KEY_FILE", str(tmp_path / "key"))
    found = configuration.load()
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == "geheim"
    assert "geheim" not in repr(found)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "http"), ("WORKERS", "0"), ("VARIANT", "Not A Name"), ("BACKEND", "gpt"), ("AGENTS", "{")],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """A bad value is an error that names the variable."""
    monkeypatch.setenv(f"AGENT_LOOP_{variable}", value)
    with pytest.raises(StartupError, match=variable.lower() if variable == "AGENTS" else variable):
        configuration.load()


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_a_missing_or_empty_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None) -> None:
    """A secret's file that is not there or empty stops the start and is named."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("AGENT_LOOP_API_KEY_FILE", str(path))
    with pytest.raises(StartupError, match=str(path)):
        configuration.load()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("ollama", "http://ollama:11434"),
        ("ollama:80", "http://ollama:80"),
        ("https://models.test", "https://models.test:443"),
        ("[::1]:1234", "http://[::1]:1234"),
    ],
)
def test_ollama_host_means_what_ollama_means(given: str, url: str) -> None:
    """OLLAMA_HOST in each form that Ollama's own client takes."""
    assert configuration.ollama_url(given) == url
