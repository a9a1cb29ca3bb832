"""Event streams out: one pure ASGI response that pings, notices a client that left, and drops one that never reads.

Written here and not taken from a library because this is where the service's promises live: the client's leaving is
acted upon at once, shutdown is the runs' business (a library that ends streams on SIGTERM would cut them), and a
chunk costs one `send`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.telemetry import Metrics, names

PING = b": ping\n\n"
PING_SECONDS = 15.0
SEND_SECONDS = 60.0
"""How long a client may take to read what is sent before it counts as gone."""


class EventStream(Response):
    """Streams `body`, an asynchronous generator of complete SSE events.

    `gone` is awaited when the client leaves before the end; the generator is closed in any case. When `over` is set
    the stream ends with `farewell`. Never compressed.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        body: AsyncGenerator[bytes],
        metrics: Metrics,
        *,
        gone: Callable[[], Awaitable[None]] | None = None,
        headers: dict[str, str] | None = None,
        over: asyncio.Event | None = None,
        farewell: bytes = b"",
        ping_seconds: float = PING_SECONDS,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._content = body
        self._metrics = metrics
        self._gone = gone
        self._over = over
        self._farewell = farewell
        self._ping_seconds = ping_seconds
        self._send_seconds = send_seconds
        self._sending_since: float | None = None
        self._last = time.monotonic()
        self.init_headers(
            {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Type": "text/event-stream"}
            | (headers or {})
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lock = asyncio.Lock()

        async def write(chunk: bytes) -> None:
            async with lock:
                self._sending_since = self._last = time.monotonic()
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                self._sending_since = None

        async def pump() -> None:
            async for chunk in self._content:
                await write(chunk)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def tend() -> None:
            while True:
                await asyncio.sleep(min(self._ping_seconds, self._send_seconds) / 3)
                now = time.monotonic()
                if self._sending_since is not None:
                    if now - self._sending_since > self._send_seconds:
                        return
                elif now - self._last >= self._ping_seconds:
                    await write(PING)

        with self._metrics.active(names.STREAMS_ACTIVE):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            pumping = asyncio.create_task(pump())
            others: list[asyncio.Task[Any]] = [asyncio.create_task(watch()), asyncio.create_task(tend())]
            ending = asyncio.create_task(self._over.wait()) if self._over is not None else None
            if ending is not None:
                others.append(ending)
            try:
                await asyncio.wait([pumping, *others], return_when=asyncio.FIRST_COMPLETED)
                if ending is not None and ending.done() and not pumping.done():
                    pumping.cancel()
                    await asyncio.wait([pumping])
                    await write(self._farewell)
                left = not pumping.done()
                if left and self._gone is not None:
                    await self._gone()
            finally:
                for task in (pumping, *others):
                    task.cancel()
                await asyncio.gather(pumping, *others, return_exceptions=True)
                await self._content.aclose()
        if not left:
            if not pumping.cancelled():
                pumping.result()  # a failure of the generator is the edge's to log
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Receive) -> None:
    """Return when the client of a request whose body was read has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
