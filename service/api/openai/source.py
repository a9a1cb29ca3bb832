"""Where a reply's deltas come from: the backend directly (a plain model) or a run of the agent loop.

Both give the same stream: texts, thoughts, the client's tool calls, one finish; errors before the first delta are
answered with a status, later ones inside the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from fastapi import Request

from service.admission import Hold
from service.api.parts import Parts
from service.api.sse import until_gone
from service.backends.base import (
    BackendFailed,
    ChatRequest,
    Delta,
    Finish,
    ModelInfo,
    ToolCall,
    ToolSpec,
    Usage,
)
from service.errors import ApiError, InvalidRequest, NotFound, Unavailable, UpstreamError
from service.model_calls import CallRecord
from service.runs import protocol
from service.runs.reader import Interrupted
from service.runs.spec import new_id
from service.telemetry.names import AbortCause


@dataclass(frozen=True, slots=True)
class Relay:
    """A plain model call: `request` without tools, and the client's tools beside it."""

    request: ChatRequest
    tools: tuple[ToolSpec, ...]
    choice: str


async def relay(parts: Parts, asked: Relay, hold: Hold) -> AsyncGenerator[Delta]:
    """The deltas of a plain model. Gives `hold` back at its end."""
    record = CallRecord(hold.arrival)
    try:
        if not asked.tools:
            async for delta in _closing(parts, asked.request, record):
                yield delta
            return
        info = await _info(parts, asked.request.model)
        request = protocol.prepare(asked.request, asked.tools, asked.choice, native=info.tools)
        constrained = protocol.is_constrained(asked.tools, asked.choice, native=info.tools)
        reader = protocol.TurnReader() if constrained else None
        called = False
        async for delta in _closing(parts, request, record):
            shown = delta
            if reader is not None:
                text = reader.feed(delta.text) if delta.text else ""
                calls: tuple[ToolCall, ...] = ()
                if delta.finish is not None:
                    rest, calls = reader.end(new_id("call"))
                    text += rest
                shown = replace(delta, text=text, tool_calls=calls)
            called = called or bool(shown.tool_calls)
            if shown.finish is not None and called:
                shown = replace(shown, finish=Finish("tool_calls", shown.finish.usage))
            if shown.text or shown.thinking or shown.tool_calls or shown.finish:
                yield shown
    finally:
        hold.leave(record.usage.total_tokens if record.usage else 0)


async def _closing(parts: Parts, request: ChatRequest, record: CallRecord) -> AsyncGenerator[Delta]:
    stream = parts.calls.chat(
        request,
        record,
        cause=lambda: AbortCause.SHUTDOWN if parts.drain.over.is_set() else AbortCause.CLIENT_GONE,
    )
    try:
        async for delta in stream:
            yield delta
    finally:
        await stream.aclose()


async def of_run(parts: Parts, run_id: str) -> AsyncGenerator[Delta]:
    """The deltas of a run: its text, its thoughts, and at its end the calls of the client's tools."""
    shown = 0  # steps whose text came; a blank line keeps the texts of two steps apart
    last_step = 0
    try:
        async for events in parts.reader.follow(run_id):
            for event in events:
                data = event.data
                if event.type == "text.delta":
                    gap = "\n\n" if shown and data["step"] != last_step else ""
                    shown, last_step = shown + (data["step"] != last_step), data["step"]
                    yield Delta(text=gap + data["text"])
                elif event.type == "thinking.delta":
                    yield Delta(thinking=data["text"])
                elif event.type == "run.ended":
                    yield _end(data)
                    return
    except Interrupted:
        raise Unavailable("The service is shutting down.", code="draining", retry_after=2.0) from None


def _end(data: dict[str, object]) -> Delta:
    error = data.get("error")
    if isinstance(error, dict):
        raise failure_of(str(error.get("code", "")), str(error.get("message", "")))
    usage = data["usage"]
    assert isinstance(usage, dict)
    calls = data["client_tool_calls"]
    assert isinstance(calls, list)
    reason = data["finish_reason"]
    return Delta(
        tool_calls=tuple(ToolCall(each["id"], each["name"], each["arguments"]) for each in calls),
        finish=Finish(
            "tool_calls" if calls else "length" if reason == "length" else "stop",
            Usage(usage["prompt_tokens"], usage["completion_tokens"]),
        ),
    )


def failure_of(code: str, message: str) -> ApiError:
    """The answer for a run that failed."""
    if code in ("backend_unavailable", "backend_overloaded", "overloaded", "draining"):
        return Unavailable(message, code=code, retry_after=2.0)
    if code in ("context_length_exceeded", "invalid_request"):
        return InvalidRequest(message, code=code)
    if code == "model_not_found":
        return NotFound(message, code=code, param="model")
    return UpstreamError(message, code=code or "backend_error")


async def begin(
    stream: AsyncGenerator[Delta], parts: Parts, request: Request, patience: float
) -> AsyncGenerator[Delta] | None:
    """The stream once its first delta is there, so that an error before it gets a status; None: the client left.

    After `patience` seconds it is returned without: headers and pings must reach the client before a proxy gives up.
    """
    first = asyncio.ensure_future(anext(stream))
    leaving = asyncio.ensure_future(until_gone(request.receive))
    over = asyncio.ensure_future(parts.drain.over.wait())
    try:
        await asyncio.wait([first, leaving, over], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        first.cancel()
        raise
    finally:
        for task in (leaving, over):
            task.cancel()
    gone = leaving.done() and not leaving.cancelled()
    if not first.done() and (gone or parts.drain.over.is_set()):
        await _cancel(first, stream)
        if gone:
            return None
        raise Unavailable("The service is shutting down.", code="draining", retry_after=2.0)
    if first.done() and (error := first.exception()) is not None:
        await stream.aclose()
        if isinstance(error, StopAsyncIteration):
            raise BackendFailed("The model's reply is empty.")
        raise error
    return _continued(first, stream)


async def _continued(first: asyncio.Future[Delta], stream: AsyncGenerator[Delta]) -> AsyncGenerator[Delta]:
    try:
        yield await first
        async for delta in stream:
            yield delta
    finally:
        if first.done():
            await stream.aclose()
        else:
            await _cancel(first, stream)


async def _cancel(first: asyncio.Future[Delta], stream: AsyncGenerator[Delta]) -> None:
    first.cancel()
    await asyncio.wait([first])
    await stream.aclose()


async def _info(parts: Parts, model: str) -> ModelInfo:
    for info in await parts.backend.models():
        if model in (info.name, info.name.removesuffix(":latest")):
            return info
    return ModelInfo(model)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
