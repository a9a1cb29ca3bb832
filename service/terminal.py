"""The service's client for the terminal: a conversation that streams, and single requests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

DEFAULT_URL = "http://127.0.0.1:8000"


class ClientError(Exception):
    """The request did not work; the text says what and what to do."""


@dataclass(frozen=True, slots=True)
class Client:
    """A running service. The key comes from `AGENT_LOOP_API_KEY` or the file that `AGENT_LOOP_API_KEY_FILE` names."""

    url: str
    key: str | None = None

    @classmethod
    def of(cls, url: str | None) -> Client:
        """The service at `url`, or at `AGENT_LOOP_URL`, or on this machine."""
        key = os.environ.get("AGENT_LOOP_API_KEY")
        path = os.environ.get("AGENT_LOOP_API_KEY_FILE")
        if not key and path:
            try:
                key = Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ClientError(f"Cannot read the API key: {path}: {error.strerror}. Name a readable file.") from None
        return cls((url or os.environ.get("AGENT_LOOP_URL") or DEFAULT_URL).rstrip("/"), key)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request; its JSON answer. Raises ClientError."""
        with self._http() as http, _Reached(self.url):
            answer = http.request(method, path, json=body)
            _check(answer)
            return answer.json()

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Start a run and give its events as they come. Raises ClientError."""
        with self._http() as http, _Reached(self.url), http.stream("POST", "/v1/runs", json=body) as answer:
            if answer.status_code != 200:
                answer.read()
            _check(answer)
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    def _http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        # A model may think for minutes before its first word; pings keep the stream alive meanwhile.
        return httpx.Client(base_url=self.url, headers=headers, timeout=httpx.Timeout(10.0, read=600.0))


class _Reached:
    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
            raise ClientError(
                f"Cannot reach the service: {self._url}: {error}. Start it with 'agent-loop serve', or set --url."
            ) from None


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.reason_phrase
    raise ClientError(f"The service refused: {answer.status_code}: {message}")


def converse(client: Client, agent: str, words: str | None) -> None:
    """Say `words` and show the answer; without words, talk until end of input."""
    console = Console(highlight=False, soft_wrap=True)
    session: str | None = None
    while True:
        try:
            said = words if words is not None else console.input("[bold]> [/bold]")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if said.strip():
            try:
                session = _say(client, console, agent, said, session)
            except KeyboardInterrupt:  # the closed connection cancels the run; the conversation goes on
                console.print("\n[dim]cancelled[/dim]")
        if words is not None:
            return


def _say(client: Client, console: Console, agent: str, said: str, session: str | None) -> str | None:
    body: dict[str, Any] = {"input": said, "agent": agent, "stream": True}
    if session is not None:
        body["session_id"] = session
    for event in client.events(body):
        data = event.get("data", {})
        match event.get("type"):
            case "run.created":
                session = data["session_id"]
            case "thinking.delta":
                console.print(f"[dim italic]{escape(data['text'])}[/]", end="")
            case "text.delta":
                console.print(escape(data["text"]), end="")
            case "tool.started":
                console.print(f"[cyan]{escape(data['name'])}[/] [dim]{escape(data['arguments'][:200])}[/]")
            case "tool.completed":
                mark = "[green]=[/]" if data["ok"] else "[red]![/]"
                console.print(f"  {mark} [dim]{escape(data['content'][:200])}[/]")
            case "run.ended":
                console.print()
                if data["outcome"] != "completed":
                    reason = (data.get("error") or {}).get("message", "")
                    console.print(f"[yellow]{data['outcome']}[/] {escape(reason)}")
                usage = data["usage"]["total_tokens"]
                console.print(f"[dim]{data['steps']} steps, {usage} tokens, {data['seconds']:.1f} s[/]")
            case _:
                pass
    return session
