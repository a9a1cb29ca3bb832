"""Ollama over its own `/api/chat`: the context size is sent, nothing is cut silently, every end of a stream is told.

Facts this rests on (Ollama 0.24, recorded exchanges in `tests/fakes/recordings`):

- Headers come with the first token: loading, queueing and the prompt pass before them, so `first_byte` is long.
- `truncate: false` turns a prompt that is too long into an error, `shift: false` makes an answer stop at the end
  of the context with `length`; without them both are cut and nobody is told.
- Another `num_ctx` reloads the model, so it is one constant.
- A stream can end cleanly without `done` (the repeat guard); that is `EndedEarly`.
- `/api/tags` lists names with their tag, replies echo them as asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, cast

from service.backends import ollama_wire as wire
from service.backends.base import (
    BackendProtocolError,
    ChatRequest,
    Delta,
    Embeddings,
    Finish,
    ModelInfo,
    ModelNotFound,
    Usage,
)
from service.backends.broken import EndedEarly, from_transport
from service.backends.transport import Timeouts, Transport, TransportError

PROBE = Timeouts(connect=2.0, first_byte=5.0, stall=5.0)
"""For questions that Ollama answers at once, also while it is busy."""


class OllamaBackend:
    """One Ollama server."""

    name = "ollama"
    # Ollama looks for a closed connection only when it writes a token.
    aborts_prompt = False

    def __init__(
        self,
        url: str,
        *,
        num_ctx: int = 8192,
        keep_alive: str = "30m",
        parallelism: int | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """`parallelism`: default is OLLAMA_NUM_PARALLEL as this process sees it, else Ollama's own default of 1."""
        self.url = url
        self.num_ctx = num_ctx
        self.keep_alive = keep_alive
        self.parallelism = parallelism or _parallel()
        # Probes and embeddings must find a connection while every chat has one.
        self._transport = Transport(url, connections=self.parallelism + 8, timeouts=timeouts)
        self._shown: dict[str, ModelInfo] = {}
        self._companion: Companion | None = None

    def attach(self, companion: Companion) -> None:
        """Start something that lives as long as this backend, such as its watch."""
        self._companion = companion
        companion.start()

    async def models(self) -> Sequence[ModelInfo]:
        """All local models with their context and capabilities (asked once for each digest)."""
        found: list[ModelInfo] = []
        for tag in await self._tags():
            name, digest = short(str(tag.get("name", ""))), str(tag.get("digest", ""))
            known = self._shown.get(name)
            if known is None or known.digest != f"sha256:{digest}":
                known = self._shown[name] = await self._show(name, digest)
            found.append(known)
        return found

    async def ready(self, model: str) -> None:
        """Raises ModelNotFound unless the model is there; it need not be in memory."""
        if full(model) not in {full(str(tag.get("name", ""))) for tag in await self._tags()}:
            raise ModelNotFound(f"Ollama does not have the model: {model} at {self.url}. Run: ollama pull {model}")

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Stream one reply; see the module's text for what is sent."""
        sent = False
        finish: Finish | None = None
        called = False
        try:
            async with self._transport.open(
                "POST", "/api/chat", json=wire.body(request, self.num_ctx, self.keep_alive)
            ) as reply:
                if reply.status != 200:
                    raise wire.refusal(reply.status, await reply.read(), request.model, self.url)
                async with aclosing(cast("Any", reply.lines())) as lines:
                    async for line in lines:
                        piece = wire.parse(line, sent)
                        delta = wire.delta(piece)
                        called = called or bool(delta.tool_calls)
                        if delta.text or delta.thinking or delta.tool_calls:
                            sent = True
                            yield delta
                        if piece.get("done"):
                            # Not left here: reading on to the body's end gives the connection back to the pool.
                            finish = Finish(wire.reason(piece, called), self._usage(piece, request.model))
        except TransportError as error:
            if finish is None:
                raise from_transport("Ollama", error, sent=sent) from error
        if finish is None:
            raise EndedEarly(
                f"Ollama ended the reply without its last message: {request.model} at {self.url}.",
                before_first_byte=not sent,
            )
        yield Delta(finish=finish)

    async def embed(self, model: str, inputs: Sequence[str]) -> Embeddings:
        """Embed by `/api/embed`; a text longer than the context is an error, not cut."""
        body = {"model": model, "input": list(inputs), "truncate": False, "keep_alive": self.keep_alive}
        status, data = await self._call("POST", "/api/embed", body)
        if status != 200:
            raise wire.refusal(status, json.dumps(data).encode(), model, self.url)
        vectors = data.get("embeddings")
        if not isinstance(vectors, list) or len(cast("list[Any]", vectors)) != len(inputs):
            raise BackendProtocolError(f"Ollama's reply has no embedding for every input: {model} at {self.url}.")
        return Embeddings(cast("list[list[float]]", vectors), int(data.get("prompt_eval_count", 0)))

    async def loaded(self) -> Sequence[Loaded]:
        """What is in memory now. Raises BackendError."""
        status, data = await self._call("GET", "/api/ps")
        if status != 200:
            raise wire.refusal(status, json.dumps(data).encode(), "", self.url)
        return [
            Loaded(short(str(model.get("name", ""))), int(model.get("size", 0)), int(model.get("size_vram", 0)))
            for model in data.get("models") or ()
        ]

    async def aclose(self) -> None:
        """Close the pool and what was attached."""
        if self._companion is not None:
            await self._companion.aclose()
        await self._transport.aclose()

    async def _tags(self) -> Sequence[Mapping[str, Any]]:
        status, data = await self._call("GET", "/api/tags")
        if status != 200:
            raise wire.refusal(status, json.dumps(data).encode(), "", self.url)
        return data.get("models") or ()

    async def _show(self, name: str, digest: str) -> ModelInfo:
        status, data = await self._call("POST", "/api/show", {"model": name})
        if status != 200:
            return ModelInfo(name, f"sha256:{digest}")
        info: Mapping[str, Any] = data.get("model_info") or {}
        trained = info.get(f"{info.get('general.architecture')}.context_length")
        can: set[str] = set(data.get("capabilities") or ["completion"])
        return ModelInfo(
            name,
            f"sha256:{digest}",
            min(self.num_ctx, trained) if isinstance(trained, int) else self.num_ctx,
            tools="tools" in can,
            thinking="thinking" in can,
            vision="vision" in can,
            embeddings="embedding" in can,
        )

    async def _call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A short request. A reply that is no JSON (a refused Host header is an empty 403) counts as empty."""
        try:
            async with self._transport.open(method, path, json=body, timeouts=_short(path)) as reply:
                raw = await reply.read()
        except TransportError as error:
            raise from_transport("Ollama", error, sent=False) from error
        try:
            data = json.loads(raw or b"{}")
        except ValueError:
            data = {"error": raw[:200].decode("utf-8", "replace")}
        return reply.status, data if isinstance(data, dict) else {}

    def _usage(self, piece: Mapping[str, Any], model: str) -> Usage:
        known = self._shown.get(short(model))
        return Usage(
            int(piece.get("prompt_eval_count", 0)),
            int(piece.get("eval_count", 0)),
            wire.seconds(piece, "load_duration"),
            wire.seconds(piece, "prompt_eval_duration"),
            wire.seconds(piece, "eval_duration"),
            known.context if known and known.context else self.num_ctx,
        )


class Companion(Protocol):
    """Something that runs beside a backend."""

    def start(self) -> None:
        """Begin."""
        ...

    async def aclose(self) -> None:
        """Stop."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory: bytes in all, and how many of them on a GPU."""

    name: str
    size: int
    vram: int

    @property
    def gpu_ratio(self) -> float:
        """Share on the GPU, 0 to 1."""
        return self.vram / self.size if self.size else 0.0


def full(name: str) -> str:
    """A model's name with its tag, as Ollama lists it: `tiny` is `tiny:latest`."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def short(name: str) -> str:
    """A model's name as people ask for it: without `:latest`."""
    return name.removesuffix(":latest")


def _short(path: str) -> Timeouts | None:
    return None if path == "/api/embed" else PROBE


def _parallel() -> int:
    try:
        return max(1, int(os.environ.get("OLLAMA_NUM_PARALLEL", "1")))
    except ValueError:
        return 1
