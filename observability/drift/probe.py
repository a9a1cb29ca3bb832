"""Synthetic prompts over HTTP: does the front door answer (every two minutes), and does the model still say the same
(hourly, fixed prompts at temperature 0)? Also when the certificate that visitors see will end.

    Prober(url, key, model).ask("Say ok.")     -> Answer; raises ProbeFailed with the reason
    changed(reference, answers)                -> ids of the prompts whose answer is another one now (pure)
    certificate_end("agent.example", 443)      -> seconds since 1970
"""

from __future__ import annotations

import difflib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from observability.drift.errors import DriftError

PROBES = Path(__file__).with_name("probes.yml")
LIVENESS = "Say ok."
ALIKE = 0.8
"""Answers whose words agree to this share count as the same: kernels on a GPU do not always add in the same order."""


class ProbeFailed(DriftError):
    """A synthetic prompt got no answer; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's text and how long it took."""

    text: str
    seconds: float


class Prober:
    """Asks the service by its OpenAI-compatible API."""

    def __init__(self, url: str, key: str | None = None, model: str | None = None, *, timeout: float = 120) -> None:
        """`model` None asks for the first that the service lists. `key` goes as a bearer token."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._model = model

    def ask(self, prompt: str, *, most: int = 64) -> Answer:
        """One answer of at most `most` tokens, at temperature 0. Raises ProbeFailed."""
        began = time.monotonic()
        try:
            body = {
                "model": self._model or self._first_model(),
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 0,
                "seed": 1,
                "max_tokens": most,
            }
            reply = self._client.post("/v1/chat/completions", json=body)
            if reply.status_code != 200:
                raise ProbeFailed(f"Probe refused: {reply.status_code}, {self._client.base_url}. {_hint(reply)}")
            text = reply.json()["choices"][0]["message"]["content"] or ""
        except httpx.HTTPError as error:
            raise ProbeFailed(
                f"No answer to a probe ({type(error).__name__}), {self._client.base_url}. Is the service up?"
            ) from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ProbeFailed(
                f"Not a chat completion ({error!r}), {self._client.base_url}. Check the address."
            ) from error
        return Answer(text, time.monotonic() - began)

    def ask_all(self, prompts: Mapping[str, str]) -> dict[str, str]:
        """The answers to all fixed prompts by id. Raises ProbeFailed at the first that gets none."""
        return {name: self.ask(prompt).text for name, prompt in prompts.items()}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _first_model(self) -> str:
        reply = self._client.get("/v1/models")
        if reply.status_code != 200:
            raise ProbeFailed(f"Models not listed: {reply.status_code}, {self._client.base_url}. {_hint(reply)}")
        models = [entry["id"] for entry in reply.json()["data"]]
        # Agents have tools and prompts of their own; a plain model answers the same prompt the same way.
        plain = [name for name in models if not name.startswith("agent/")]
        if not models:
            raise ProbeFailed(f"No model is served, {self._client.base_url}. Pull one: 'agent-loop init'.")
        self._model = (plain or models)[0]
        return self._model


def prompts(path: Path = PROBES) -> dict[str, str]:
    """The fixed prompts by id."""
    return {entry["id"]: entry["prompt"] for entry in yaml.safe_load(path.read_text())}


def changed(reference: Mapping[str, str], answers: Mapping[str, str]) -> list[str]:
    """Ids that both have, and whose answers' words agree less than ALIKE."""
    return [name for name in answers if name in reference and not _alike(reference[name], answers[name])]


def certificate_end(host: str, port: int = 443, *, timeout: float = 10) -> float:
    """When the certificate that this server shows ends (seconds since 1970); trusted or not. Raises ProbeFailed."""
    try:
        pem = ssl.get_server_certificate((host, port), timeout=timeout)
        return _not_after(ssl.PEM_cert_to_DER_cert(pem)).timestamp()
    except (OSError, ValueError, IndexError) as error:
        raise ProbeFailed(f"No certificate ({error}), {host}:{port}. Is that an HTTPS address?") from error


def _alike(one: str, other: str) -> bool:
    a, b = one.split(), other.split()
    return a == b or difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= ALIKE


def _hint(reply: httpx.Response) -> str:
    if reply.status_code in (401, 403):
        return "Give the probe a key that is valid now."
    try:
        body: Any = reply.json()
        return str(body["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "See the service's log."


def _not_after(der: bytes) -> datetime:
    """`validity.notAfter` of an X.509 certificate (RFC 5280, 4.1): the fifth field of its first part."""
    _, body, _ = _element(der, 0)
    _, to_be_signed, _ = _element(body, 0)
    at = 0
    tag, _, after = _element(to_be_signed, at)
    if tag == 0xA0:  # the version is optional
        at = after
    for _ in range(3):  # serial number, algorithm, issuer
        _, _, at = _element(to_be_signed, at)
    _, validity, _ = _element(to_be_signed, at)
    _, _, second = _element(validity, 0)
    tag, text, _ = _element(validity, second)
    form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """One DER element: its tag, its content, and where the next begins."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    return tag, data[start : start + length], start + length
