"""Counts what a backend does: duration, first chunk, tokens, context use, how each call ended, and why it was cut.

A wrapper with the same protocol, so that no backend knows of metrics and nothing is counted twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, cast

import anyio

from service.backends.base import (
    Backend,
    BackendError,
    BackendFailed,
    BackendOverloaded,
    BackendProtocolError,
    BackendRejected,
    BackendStalled,
    ChatRequest,
    ContextTooLong,
    Delta,
    Embeddings,
    Finish,
    ModelInfo,
)
from service.backends.broken import EndedEarly
from service.telemetry import Traces, names
from service.telemetry.metrics import Metrics
from service.telemetry.names import AbortCause, Attempt, TokenType

abort_cause: ContextVar[AbortCause] = ContextVar("abort_cause", default=AbortCause.OTHER)
"""Why the caller is about to close a chat; set it before `aclose()` or before cancelling inside the task."""

_ATTEMPTS: tuple[tuple[type[BackendError], Attempt], ...] = (
    (BackendOverloaded, Attempt.BUSY),
    (BackendStalled, Attempt.TIMEOUT),
    (EndedEarly, Attempt.NO_FINISH),
    (BackendProtocolError, Attempt.BROKEN_STREAM),
    (BackendFailed, Attempt.SERVER_ERROR),
    (BackendRejected, Attempt.REFUSED),
)


class Observed:
    """`backend`, counted into `metrics`."""

    def __init__(self, backend: Backend, metrics: Metrics, traces: Traces | None = None) -> None:
        self._backend = backend
        self._metrics = metrics
        self._traces = traces or Traces()
        self.name = backend.name
        self.parallelism = backend.parallelism
        self.aborts_prompt = backend.aborts_prompt

    async def models(self) -> Sequence[ModelInfo]:
        """As the backend."""
        return await self._backend.models()

    async def ready(self, model: str) -> None:
        """As the backend."""
        await self._backend.ready(model)

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """As the backend, counted once the call is over."""
        start = time.monotonic()
        first = last = 0.0
        chunks = 0
        finish: Finish | None = None
        error = ""
        attempt = Attempt.OK
        span = self._traces.begin(names.SPAN_CHAT, self._about(request))
        said: list[str] = []
        try:
            async with aclosing(cast("Any", self._backend.chat(request))) as stream:
                async for delta in stream:
                    last = time.monotonic()
                    first = first or last
                    chunks += 1
                    finish = delta.finish or finish
                    if self._traces.capture_content:
                        said.append(delta.text)
                    yield delta
        except (GeneratorExit, anyio.get_cancelled_exc_class()):
            if finish is None:
                attempt, error = Attempt.ABORTED, "aborted"
                self._metrics.inc(names.UPSTREAM_ABORTS, cause=abort_cause.get())
            raise
        except BackendError as problem:
            attempt, error = attempt_of(problem), problem.code
            if isinstance(problem, BackendStalled) and not problem.before_first_byte:
                self._metrics.inc(names.STREAM_STALLS)
            if isinstance(problem, ContextTooLong):
                self._truncated(request.model, "prompt")
            raise
        finally:
            self._metrics.inc(names.UPSTREAM_ATTEMPTS, outcome=attempt)
            self._record(request.model, start, first, last, chunks, finish, error)
            if finish is not None:
                span.set(names.ATTR_INPUT_TOKENS, finish.usage.prompt_tokens)
                span.set(names.ATTR_OUTPUT_TOKENS, finish.usage.completion_tokens)
                span.set(names.ATTR_FINISH, finish.reason)
            if said:
                span.set(names.ATTR_OUTPUT, _spoken([("assistant", "".join(said))]))
            if error:
                span.fail(error)
            span.end()

    def _about(self, request: ChatRequest) -> dict[str, str]:
        about = {
            names.ATTR_OPERATION: names.SPAN_CHAT,
            names.ATTR_PROVIDER: self.name,
            names.ATTR_MODEL: self._metrics.model(request.model),
        }
        if self._traces.capture_content:
            about[names.ATTR_INPUT] = _spoken([(each.role, each.content) for each in request.messages])
        return about

    async def embed(self, model: str, inputs: Sequence[str]) -> Embeddings:
        """As the backend."""
        start = time.monotonic()
        error = ""
        try:
            return await self._backend.embed(model, inputs)
        except BackendError as problem:
            error = problem.code
            raise
        finally:
            self._metrics.observe(
                names.MODEL_CALL, time.monotonic() - start, **self._labels(model, "embeddings"), error_type=error
            )

    async def aclose(self) -> None:
        """As the backend."""
        await self._backend.aclose()

    def _record(
        self,
        model: str,
        start: float,
        first: float,
        last: float,
        chunks: int,
        finish: Finish | None,
        error: str,
    ) -> None:
        metrics, labels = self._metrics, self._labels(model, "chat")
        metrics.observe(names.MODEL_CALL, time.monotonic() - start, **labels, error_type=error)
        del labels["gen_ai_operation_name"]
        if first:
            metrics.observe(names.FIRST_CHUNK, first - start, **labels)
        if chunks > 2:
            metrics.observe(names.PER_CHUNK, (last - first) / (chunks - 1), **labels)
        if finish is None:
            return
        usage = finish.usage
        metrics.inc(names.TOKENS, usage.prompt_tokens, gen_ai_token_type=TokenType.INPUT, **labels)
        metrics.inc(names.TOKENS, usage.completion_tokens, gen_ai_token_type=TokenType.OUTPUT, **labels)
        name = labels["gen_ai_request_model"]
        if usage.completion_tokens > 1:
            spent = (last - first) / (usage.completion_tokens - 1)
            metrics.observe(names.PER_TOKEN, spent, gen_ai_request_model=name)
        if usage.context_tokens:
            ratio = usage.total_tokens / usage.context_tokens
            metrics.observe(names.CONTEXT_USED, ratio, gen_ai_request_model=name)
            # The stop token may be counted or not, so an answer that ran into the end is within one of it.
            if finish.reason == "length" and usage.total_tokens + 1 >= usage.context_tokens:
                self._truncated(model, "answer")
        if self.name == "ollama":
            self._ollama(name, usage.load_seconds, usage.prompt_seconds, usage.decode_seconds, last - start)

    def _ollama(self, model: str, load: float | None, prompt: float | None, decode: float | None, total: float) -> None:
        load, prompt, decode = load or 0.0, prompt or 0.0, decode or 0.0
        for metric, seconds in (
            (names.OLLAMA_LOAD, load),
            (names.OLLAMA_PROMPT_EVAL, prompt),
            (names.OLLAMA_EVAL, decode),
            (names.OLLAMA_QUEUE, total - load - prompt - decode),
        ):
            self._metrics.observe(metric, seconds, model=model)

    def _truncated(self, model: str, kind: str) -> None:
        name = self._metrics.model(model)
        self._metrics.inc(names.CONTEXT_TRUNCATIONS, gen_ai_request_model=name, kind=kind)

    def _labels(self, model: str, operation: str) -> dict[str, str]:
        return {
            "gen_ai_operation_name": operation,
            "gen_ai_provider_name": self.name,
            "gen_ai_request_model": self._metrics.model(model),
        }


def _spoken(messages: Sequence[tuple[str, str]]) -> str:
    """`(role, text)` pairs in the form that the conventions give a span's messages."""
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in messages])


def attempt_of(error: BackendError) -> Attempt:
    """How a call that ended with this error counts."""
    return next((attempt for kind, attempt in _ATTEMPTS if isinstance(error, kind)), Attempt.CONNECT)
