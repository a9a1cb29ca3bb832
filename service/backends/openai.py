"""Any server that speaks OpenAI's `/v1/chat/completions`: vLLM, llama.cpp's server, a hosted API.

A stream is over when a finish reason came; `[DONE]` and the usage follow it. Without one the stream broke off.
Tool calls arrive in fragments and are handed on complete.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from service.backends.base import (
    BackendError,
    BackendFailed,
    BackendOverloaded,
    BackendProtocolError,
    BackendRejected,
    BackendUnavailable,
    ChatRequest,
    ContextTooLong,
    Delta,
    Embeddings,
    Finish,
    FinishReason,
    Message,
    ModelInfo,
    ModelNotFound,
    ToolCall,
    Usage,
)
from service.backends.broken import EndedEarly, from_transport
from service.backends.transport import Reply, Timeouts, Transport, TransportError

PROBE = Timeouts(connect=5.0, first_byte=10.0, stall=10.0)


class OpenAIBackend:
    """One server at `url` (which ends in `/v1`)."""

    name = "openai"
    # A server that works in batches looks for a closed connection between them.
    aborts_prompt = True

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        parallelism: int = 8,
        timeouts: Timeouts | None = None,
        use_environment: bool = True,
        label: str = "The OpenAI-compatible server",
    ) -> None:
        self.url = url.rstrip("/")
        self.parallelism = parallelism
        self._label = label
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._transport = Transport(
            self.url,
            connections=parallelism + 8,
            timeouts=timeouts,
            headers=headers,
            use_environment=use_environment,
        )
        self._contexts: dict[str, int] = {}

    async def models(self) -> Sequence[ModelInfo]:
        """What `/models` lists. That they can call tools is taken for granted: the list does not tell."""
        data = await self._json("GET", "/models", None, PROBE)
        found: list[ModelInfo] = []
        for model in cast("Sequence[Mapping[str, Any]]", data.get("data") or ()):
            context = model.get("max_model_len") or (model.get("meta") or {}).get("n_ctx")
            name = str(model.get("id", ""))
            if isinstance(context, int):
                self._contexts[name] = context
            found.append(ModelInfo(name, context=self._contexts.get(name), tools=True, embeddings=True))
        return found

    async def ready(self, model: str) -> None:
        """Raises ModelNotFound unless the server lists the model."""
        if model not in {each.name for each in await self.models()}:
            raise ModelNotFound(f"{self._label} does not have the model: {model} at {self.url}.")

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Stream one reply."""
        sent = False
        state = _Stream()
        try:
            async with self._transport.open("POST", "/chat/completions", json=_body(request)) as reply:
                if reply.status != 200:
                    raise await self._refusal(reply, request.model)
                async with aclosing(cast("Any", reply.lines())) as lines:
                    async for line in lines:
                        for delta in state.read(line, sent):
                            sent = True
                            yield delta
        except TransportError as error:
            if state.reason is None:
                raise from_transport(self._label, error, sent=sent) from error
        if state.reason is None:
            raise EndedEarly(
                f"{self._label} ended the reply without a finish reason: {request.model} at {self.url}.",
                before_first_byte=not sent,
            )
        yield Delta(
            tool_calls=state.calls(), finish=Finish(state.reason, state.usage(self._contexts.get(request.model)))
        )

    async def embed(self, model: str, inputs: Sequence[str]) -> Embeddings:
        """Embed by `/embeddings`."""
        data = await self._json("POST", "/embeddings", {"model": model, "input": list(inputs)}, None)
        rows = sorted(cast("Sequence[Any]", data.get("data") or ()), key=lambda row: row.get("index", 0))
        if len(rows) != len(inputs):
            raise BackendProtocolError(f"{self._label} did not embed every input: {model} at {self.url}.")
        return Embeddings([row["embedding"] for row in rows], int((data.get("usage") or {}).get("prompt_tokens", 0)))

    async def aclose(self) -> None:
        """Close the pool."""
        await self._transport.aclose()

    async def _json(self, method: str, path: str, body: Any, timeouts: Timeouts | None) -> Mapping[str, Any]:
        try:
            async with self._transport.open(method, path, json=body, timeouts=timeouts) as reply:
                if reply.status != 200:
                    raise await self._refusal(reply, (body or {}).get("model", ""))
                data = await reply.json()
        except TransportError as error:
            raise from_transport(self._label, error, sent=False) from error
        if not isinstance(data, dict):
            raise BackendProtocolError(f"{self._label} sent no JSON object: {path} at {self.url}.")
        return cast("Mapping[str, Any]", data)

    async def _refusal(self, reply: Reply, model: str) -> BackendError:
        body = await reply.read(1024 * 1024)
        try:
            error: Any = json.loads(body)
            error = error.get("error", error) if isinstance(error, dict) else {}
        except ValueError:
            error = {"message": body[:200].decode("utf-8", "replace")}
        if not isinstance(error, dict):
            error = {"message": str(error)}
        text = " ".join(str(error.get("message", "")).split())[:300].rstrip(".")
        kinds = {str(error.get("code")), str(error.get("type"))}
        place = f"{model} at {self.url}" if model else self.url
        if kinds & {"context_length_exceeded", "exceed_context_size_error"} or "maximum context length" in text:
            return ContextTooLong(f"The conversation is longer than the model's context: {place}. Shorten it.")
        if reply.status == 404:
            return ModelNotFound(f"{self._label} does not have the model: {place}. {text}.")
        if reply.status in (401, 403):
            return BackendUnavailable(f"{self._label} refuses our key: {place}. Set AGENT_LOOP_OPENAI_API_KEY.")
        if reply.status in (429, 503):
            wait = reply.headers.get("retry-after", "")
            return BackendOverloaded(
                f"{self._label} is busy: {text}: {place}.", retry_after=float(wait) if wait.isdigit() else 1.0
            )
        if reply.status < 500 or reply.status == 501:
            return BackendRejected(f"{self._label} refused the request: {text}: {place}.")
        return BackendFailed(f"{self._label} failed with status {reply.status}: {text}: {place}.")


class _Stream:
    """Puts the events of one stream together."""

    def __init__(self) -> None:
        self.reason: FinishReason | None = None
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._calls: dict[int, dict[str, str]] = {}

    def read(self, line: bytes, sent: bool) -> list[Delta]:
        """The deltas of one line of the event stream."""
        if not line.startswith(b"data:"):
            return []  # a comment that keeps the connection alive, or a field that means nothing here
        data = line[5:].strip()
        if data == b"[DONE]":
            return []  # the body ends after it; reading to there gives the connection back to the pool
        try:
            event: Any = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise BackendProtocolError(f"An event is no JSON object: {data[:80]!r}.", before_first_byte=not sent)
        if event.get("error"):
            error = event["error"]
            text = error.get("message", error) if isinstance(error, dict) else error
            raise BackendFailed(f"The model's server failed: {text}.", before_first_byte=not sent)
        self._usage = event.get("usage") or self._usage
        self._timings = event.get("timings") or self._timings
        deltas: list[Delta] = []
        for choice in cast("Sequence[Mapping[str, Any]]", event.get("choices") or ())[:1]:
            piece: Mapping[str, Any] = choice.get("delta") or {}
            text = str(piece.get("content") or "")
            thinking = str(piece.get("reasoning_content") or piece.get("reasoning") or "")
            self._collect(piece.get("tool_calls") or ())
            if text or thinking:
                deltas.append(Delta(text, thinking))
            reason = choice.get("finish_reason")
            if reason:
                self.reason = "length" if reason == "length" else "tool_calls" if self._calls else "stop"
        return deltas

    def calls(self) -> tuple[ToolCall, ...]:
        """The complete calls, in their order."""
        return tuple(
            ToolCall(call["id"] or f"call_{index}", call["name"], call["arguments"])
            for index, call in sorted(self._calls.items())
        )

    def usage(self, context: int | None) -> Usage:
        """The counts; the timings are llama.cpp's, in milliseconds."""
        prompt, decode = self._timings.get("prompt_ms"), self._timings.get("predicted_ms")
        return Usage(
            int(self._usage.get("prompt_tokens") or 0),
            int(self._usage.get("completion_tokens") or 0),
            None,
            prompt / 1000 if prompt is not None else None,
            decode / 1000 if decode is not None else None,
            context,
        )

    def _collect(self, pieces: Sequence[Mapping[str, Any]]) -> None:
        for piece in pieces:
            index = int(piece.get("index") or 0)
            call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
            function: Mapping[str, Any] = piece.get("function") or {}
            call["id"] = call["id"] or str(piece.get("id") or "")
            call["name"] += str(function.get("name") or "")
            call["arguments"] += str(function.get("arguments") or "")


def _body(request: ChatRequest) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for name, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        ("seed", sampling.seed),
        ("max_tokens", sampling.max_tokens),
        ("stop", list(sampling.stop) or None),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ):
        if value is not None:
            body[name] = value
    if request.tools:
        body["tools"] = [tool.as_function() for tool in request.tools]
    if request.format == "json":
        body["response_format"] = {"type": "json_object"}
    elif request.format is not None:
        schema = {"name": "output", "schema": dict(request.format), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _message(message: Message) -> dict[str, Any]:
    content: Any = message.content
    if message.images:
        parts: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
        for image in message.images:
            parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}})
        content = parts
    wire: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id or ""
    return wire
