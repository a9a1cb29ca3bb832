"""A fake OpenAI-compatible server: answers with the bytes it is given, on a real socket.

async with FakeOpenAI() as server:
    server.stream({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]})
    …  # server.url ends in /v1; server.bodies holds what was asked
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass
class FakeOpenAI:
    """An asynchronous context manager. `models` is what `/v1/models` lists."""

    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "m"}])
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._answers: deque[tuple[int, bytes, bool]] = deque()

    def stream(self, *events: Any, done: bool = True, cut: bool = False) -> None:
        """Answer with these events: objects become `data:` lines, text is sent as it is. `cut`: break off."""
        lines = [each if isinstance(each, str) else f"data: {json.dumps(each)}\n\n" for each in events]
        if done:
            lines.append("data: [DONE]\n\n")
        self._answers.append((200, "".join(lines).encode(), cut))

    def refuse(self, status: int, error: Any) -> None:
        """Answer with a status and this body."""
        self._answers.append((status, json.dumps(error).encode(), False))

    async def __aenter__(self) -> FakeOpenAI:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *rest = head.strip().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                self.headers.append(headers)
                if first.startswith("GET"):
                    status, body, cut = 200, json.dumps({"data": self.models}).encode(), False
                else:
                    self.bodies.append(json.loads(raw))
                    status, body, cut = self._answers.popleft()
                kind = "text/event-stream" if status == 200 and body.startswith((b"data", b":")) else "application/json"
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n".encode())
                if cut:
                    writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body))
                    await writer.drain()
                    break
                writer.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()
