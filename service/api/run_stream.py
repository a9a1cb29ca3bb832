"""A run's log on the wire: server-sent events whose ids are the numbers of the log."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from service.api.parts import Parts
from service.api.sse import EventStream
from service.errors import ApiError
from service.runs.reader import Interrupted
from service.store.runs import Event


def event_stream(
    parts: Parts, run_id: str, after: int, *, cancels: bool, headers: dict[str, str] | None = None
) -> EventStream:
    """A run's log as an SSE response."""

    async def gone() -> None:
        await parts.runner.stop(run_id, "client_gone")

    return EventStream(_sse(parts, run_id, after), parts.metrics, gone=gone if cancels else None, headers=headers)


async def _sse(parts: Parts, run_id: str, after: int) -> AsyncGenerator[bytes]:
    last = after
    try:
        async for events in parts.reader.follow(run_id, after):
            last = events[-1].seq
            yield b"".join(sse_event(event) for event in events)
    except (Interrupted, ApiError) as error:
        # Not part of the log, so it has no id: a reconnecting client goes on after the last real event.
        code = error.code if isinstance(error, ApiError) else "interrupted"
        message = error.message if isinstance(error, ApiError) else "The stream ends here. Read on with Last-Event-ID."
        data = {"error": {"code": code, "message": message}, "last_event_id": last}
        yield f"event: stream.error\ndata: {json.dumps(data)}\n\n".encode()


def sse_event(event: Event) -> bytes:
    """One event on the wire."""
    data: dict[str, Any] = {"seq": event.seq, "type": event.type, "at": event.at, "data": event.data}
    return f"id: {event.seq}\nevent: {event.type}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
