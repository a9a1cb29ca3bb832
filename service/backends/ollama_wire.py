"""Ollama's `/api/chat` on the wire: what is asked, and what each line and each refusal means. Pure."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
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
    FinishReason,
    Message,
    ModelNotFound,
    ToolCall,
)

_REQUEST_FAULTS = ("invalid format", "invalid json schema", "option ", "json: cannot unmarshal", "think value")
"""Beginnings of messages that Ollama sends with status 500 although the request is at fault."""


def body(request: ChatRequest, num_ctx: int, keep_alive: str) -> dict[str, Any]:
    """The request. `num_ctx` goes with each: a call with another one makes Ollama load the model again."""
    sampling = request.sampling
    options: dict[str, Any] = {"num_ctx": num_ctx}
    for option, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        ("seed", sampling.seed),
        ("num_predict", sampling.max_tokens),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("stop", list(sampling.stop) or None),
    ):
        if value is not None:
            options[option] = value
    wire: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "truncate": False,
        "shift": False,
        "keep_alive": keep_alive,
        "options": options,
    }
    if request.tools:
        wire["tools"] = [tool.as_function() for tool in request.tools]
    if request.format is not None:
        wire["format"] = request.format if isinstance(request.format, str) else dict(request.format)
    if request.think is not None:
        wire["think"] = request.think
    return wire


def _message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        wire["thinking"] = message.thinking
    if message.images:
        wire["images"] = list(message.images)
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": _object(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        if message.name:
            wire["tool_name"] = message.name
        if message.tool_call_id:
            wire["tool_call_id"] = message.tool_call_id
    return wire


def _object(arguments: str) -> dict[str, Any]:
    """Ollama takes arguments as an object only; what a model once wrote wrongly is passed on as a text in one."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {"invalid": arguments}


def parse(line: bytes, sent: bool) -> Mapping[str, Any]:
    """One line of a reply; `sent`: something of it was handed on before. Raises BackendError."""
    try:
        piece: Any = json.loads(line)
    except ValueError:
        piece = None
    if not isinstance(piece, dict):
        raise BackendProtocolError(
            f"Ollama sent a line that is no JSON object: {line[:80]!r}.", before_first_byte=not sent
        )
    if "error" in piece:
        raise BackendFailed(f"Ollama failed: {_text(piece)}.", before_first_byte=not sent)
    return cast("Mapping[str, Any]", piece)


def delta(piece: Mapping[str, Any]) -> Delta:
    """What a line adds."""
    message: Mapping[str, Any] = piece.get("message") or {}
    calls = tuple(
        ToolCall(
            str(call.get("id") or f"call_{secrets.token_hex(4)}"),
            str((call.get("function") or {}).get("name", "")),
            json.dumps((call.get("function") or {}).get("arguments") or {}, ensure_ascii=False),
        )
        for call in message.get("tool_calls") or ()
    )
    return Delta(str(message.get("content") or ""), str(message.get("thinking") or ""), calls)


def reason(piece: Mapping[str, Any], called: bool) -> FinishReason:
    """Why the last line says that the reply is over."""
    if called:
        return "tool_calls"
    return "length" if piece.get("done_reason") == "length" else "stop"


def refusal(status: int, body: bytes, model: str, url: str) -> BackendError:
    """The error of a reply with another status than 200."""
    try:
        text = _text(json.loads(body))
    except ValueError:
        text = body[:200].decode("utf-8", "replace")
    place = f"{model} at {url}" if model else url
    if status == 404 and model:
        return ModelNotFound(f"Ollama does not have the model: {place}. Run: ollama pull {model}")
    if status == 403:
        return BackendUnavailable(
            f"Ollama refuses this host name: {url}. Start it with OLLAMA_HOST=0.0.0.0, or ask it by a local address."
        )
    if status in (429, 503):
        return BackendOverloaded(f"Ollama is busy: {text}: {place}.", retry_after=1.0)
    if "exceeds the context length" in text:
        return ContextTooLong(f"The conversation is longer than the model's context: {place}. Shorten it.")
    if status < 500 or text.lower().startswith(_REQUEST_FAULTS):
        return BackendRejected(f"Ollama refused the request: {text}: {place}.")
    return BackendFailed(f"Ollama failed with status {status}: {text}: {place}.")


def _text(data: Any) -> str:
    if isinstance(data, dict):
        data = cast("Mapping[str, Any]", data).get("error", "")
    return " ".join(str(data).split())[:300].rstrip(".")


def seconds(piece: Mapping[str, Any], key: str) -> float:
    """A duration of the last line, which has nanoseconds."""
    # Zero values are left out of the reply.
    return float(piece.get(key, 0)) / 1e9
