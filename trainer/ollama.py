"""What deployment needs of Ollama: upload a file, make a model of it, ask it once, give it a name; and what a plan
does: which models are in memory, and that one leaves it.

    with Ollama(url) as ollama:
        ollama.upload(path, digest)
        ollama.create("agent-loop:3f2a…", {path.name: digest}, template, parameters)
        ollama.chat("agent-loop:3f2a…", "Hello!")
        ollama.copy("agent-loop:3f2a…", "agent-loop")

Written after exchanges with Ollama 0.24: a create that fails still has status 200, the last line tells; a blob that
is there already resets whoever sends it again, so it is asked for first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from trainer.export.errors import DeployError

DEFAULT_URL = "http://127.0.0.1:11434"
CHUNK = 1 << 20
CONNECT_SECONDS = 5.0
QUIET_SECONDS = 600.0
"""Ollama is silent while it loads a model or reads a prompt."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Loaded:
    """A model in memory: bytes in all, and of them on a card."""

    name: str
    size: int
    on_card: int


class Ollama:
    """An Ollama at `url`. Every method raises DeployError with what Ollama said."""

    def __init__(self, url: str = DEFAULT_URL) -> None:
        self.url = url if "://" in url else f"http://{url}"
        self._http = httpx.Client(
            base_url=self.url, timeout=httpx.Timeout(QUIET_SECONDS, connect=CONNECT_SECONDS), trust_env=False
        )

    def answers(self) -> bool:
        """Whether an Ollama is there."""
        try:
            return self._http.get("/api/version", timeout=CONNECT_SECONDS).status_code == 200
        except httpx.HTTPError:
            return False

    def upload(self, path: Path, digest: str, progress: Progress | None = None) -> bool:
        """Send the file unless Ollama has it; returns whether it was sent. `digest` is `sha256:…` of its bytes."""
        place = f"/api/blobs/{digest}"
        if self._send("HEAD", place).status_code == 200:
            return False
        size = path.stat().st_size

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
                    if progress:
                        progress(file.tell(), size)

        reply = self._send("POST", place, content=chunks(), headers={"Content-Length": str(size)})
        if reply.status_code not in (200, 201):
            raise DeployError(f"Ollama did not take the file: {_error(reply)}, {path}. Export the run again.")
        return True

    def create(
        self,
        model: str,
        files: Mapping[str, str],
        template: str,
        parameters: Mapping[str, object],
        say: Callable[[str], None],
    ) -> None:
        """Make `model` from uploaded blobs ({file name: digest}); `say` gets each status line."""
        body = {"model": model, "files": dict(files), "template": template, "parameters": dict(parameters)}
        last: dict[str, Any] = {}
        try:
            with self._http.stream("POST", "/api/create", json=body) as reply:
                if reply.status_code != 200:
                    reply.read()
                    raise DeployError(f"Ollama cannot make {model}: {_error(reply)}.")
                for line in reply.iter_lines():
                    if line.strip():
                        last = _object(line)
                        if "status" in last:
                            say(str(last["status"]))
        except httpx.HTTPError as error:
            raise DeployError(f"Ollama went away while making {model} ({type(error).__name__}), {self.url}.") from None
        if last.get("status") != "success":
            reason = last.get("error", f"it ended with {last or 'nothing'}")
            raise DeployError(f"Ollama cannot make {model}: {reason}.")

    def chat(self, model: str, question: str) -> str:
        """One greedy answer. An empty or unfinished one is an error."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "stream": False,
            "options": {"temperature": 0, "num_predict": 128},
        }
        reply = self._send("POST", "/api/chat", json=body)
        if reply.status_code != 200:
            raise DeployError(f"{model} does not answer: {_error(reply)}.")
        said = _object(reply.text)
        answer = str(said.get("message", {}).get("content", ""))
        if not answer.strip() or not said.get("done"):
            raise DeployError(f"{model} gave no finished answer to {question!r}: {reply.text[:200]}.")
        return answer

    def copy(self, source: str, target: str) -> None:
        """Let `target` name what `source` names."""
        reply = self._send("POST", "/api/copy", json={"source": source, "destination": target})
        if reply.status_code != 200:
            raise DeployError(f"Ollama cannot name {source} as {target}: {_error(reply)}.")

    def has(self, model: str) -> bool:
        """Whether Ollama knows the model (`/api/show`; a listing of loaded models would not tell)."""
        return self._send("POST", "/api/show", json={"model": model}).status_code == 200

    def loaded(self) -> list[Loaded]:
        """The models in memory, by the names that loaded them."""
        reply = self._send("GET", "/api/ps")
        if reply.status_code != 200:
            raise DeployError(f"Ollama does not say what it holds: {_error(reply)}, {self.url}.")
        listed: list[dict[str, Any]] = _object(reply.text).get("models") or []
        return [Loaded(str(m["name"]), int(m.get("size", 0)), int(m.get("size_vram", 0))) for m in listed]

    def unload(self, model: str) -> None:
        """Let a model leave memory: at once, or when the answer it is giving ends."""
        reply = self._send("POST", "/api/generate", json={"model": model, "keep_alive": 0})
        if reply.status_code != 200:
            raise DeployError(f"Ollama does not unload {model}: {_error(reply)}, {self.url}.")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Ollama:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _send(self, method: str, place: str, **values: Any) -> httpx.Response:
        try:
            return self._http.request(method, place, **values)
        except httpx.HTTPError as error:
            raise DeployError(
                f"No answer from Ollama ({type(error).__name__}), {self.url}. Start it, or name it with --ollama URL."
            ) from None


def _object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise DeployError(f"Ollama sent something that is no JSON object: {text[:200]!r}.")
    return said


def _error(reply: httpx.Response) -> str:
    """What Ollama says is wrong; the status where it says nothing (a foreign Host gets an empty 403)."""
    try:
        return str(reply.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code} {reply.text[:200]}".strip()
