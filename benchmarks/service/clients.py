"""Load: many connections of one process, as little work a byte as can be, and what they saw.

    python benchmarks/service/clients.py '{"url": …, "clients": 64, "requests": 1000, "model": "c20-p0", …}'

prints one JSON object. `kind` is `stream` (reads streams to their end), `whole` (answers without a stream) or `abort`
(leaves each stream after its first chunk).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Seen:
    """What all clients saw. Times in seconds; `left` are the moments of leaving, on the machine's monotonic clock."""

    chunks: int = 0
    answers: int = 0
    refused: int = 0
    broken: int = 0
    wall: float = 0.0
    first: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)


async def ask(order: dict[str, Any], seen: Seen, connection: list[Any]) -> None:
    """One request; `connection` holds reader and writer while they can be used again."""
    url = urlsplit(order["url"])
    streaming = order["kind"] != "whole"
    body = json.dumps(
        {"model": order["model"], "messages": [{"role": "user", "content": "Hi"}], "stream": streaming}
    ).encode()
    head = (
        f"POST {url.path}/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {order.get('key', 'none')}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    if not connection:
        connection[:] = await asyncio.open_connection(url.hostname, url.port, limit=2**20)
    reader, writer = connection
    started = time.monotonic()
    writer.write(head + body)
    top = await reader.readuntil(b"\r\n\r\n")
    status = int(top[9:12])
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", top)
    if length:
        await reader.readexactly(int(length[1]))
        seen.took.append(time.monotonic() - started)
        seen.answers += status == 200
        seen.refused += status in (429, 503)
        seen.broken += status not in (200, 429, 503)
        return
    tail = b""
    first = 0.0
    while True:
        data = await reader.read(65536)
        if not data:
            raise ConnectionError("ended early")
        count = data.count(b'"content":" word"') + (data.count(b'"content": " word"'))
        seen.chunks += count
        if count and not first:
            first = time.monotonic() - started
            seen.first.append(first)
            if order["kind"] == "abort":
                connection.clear()
                writer.transport.abort() if order.get("reset") else writer.close()
                seen.left.append(time.monotonic())
                seen.answers += 1
                return
        tail = (tail + data)[-16:]
        if tail.endswith(b"0\r\n\r\n"):
            break
    seen.took.append(time.monotonic() - started)
    seen.answers += 1


async def client(order: dict[str, Any], seen: Seen, left: list[int]) -> None:
    """One client: requests after each other while there are any left."""
    connection: list[Any] = []
    while left[0] > 0:
        left[0] -= 1
        try:
            async with asyncio.timeout(300):
                await ask(order, seen, connection)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            seen.broken += 1
            connection.clear()
    if connection:
        connection[1].close()


async def main(order: dict[str, Any]) -> None:
    """All clients."""
    seen = Seen()
    left = [int(order["requests"])]
    started = time.monotonic()
    await asyncio.gather(*(client(order, seen, left) for _ in range(order["clients"])))
    seen.wall = time.monotonic() - started
    print(json.dumps(asdict(seen)))


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(json.loads(sys.argv[1])))
