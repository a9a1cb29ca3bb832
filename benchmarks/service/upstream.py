"""A model server that costs next to nothing: OpenAI's wire, fixed chunks at a fixed pace, and a count of who left.

    python benchmarks/service/upstream.py PORT

The model's name says how it answers: `c200-p10` streams 200 chunks, one every 10 ms. `GET /stats` tells how many
streams are open, how many were closed by the other side, and when (seconds of the machine's monotonic clock).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections import deque
from typing import Any

CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
    b'{"content":" word"},"finish_reason":null}]}\n\n'
)
LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}]}\n\n'
)
USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)
WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": " word" * 20}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29},
}
MODELS = ("c20-p0", "c200-p10", "c2000-p0", "c20000-p10")
STATS: dict[str, Any] = {"open": 0, "aborted": 0, "aborted_at": deque[float](maxlen=200)}


def answer(body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    """A whole response."""
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body)


async def stream(model: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Stream a reply; False if the other side left before its end."""
    found = re.fullmatch(r"c(\d+)-p(\d+)", model.rpartition("/")[2])
    count, pace = (int(found[1]), int(found[2]) / 1000) if found else (20, 0.0)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)
    left = asyncio.ensure_future(reader.read(1))
    STATS["open"] += 1
    due = time.monotonic()
    try:
        for _ in range(count):
            if pace:
                due += pace
                await asyncio.wait([left], timeout=max(0.0, due - time.monotonic()))
            if left.done() or writer.is_closing():
                STATS["aborted"] += 1
                STATS["aborted_at"].append(time.monotonic())
                return False
            writer.write(piece)
            await writer.drain()
        end = LAST + USAGE % (count, count + 9)
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
        await writer.drain()
        return False  # the read that watched for the other side's leaving may have taken a byte
    finally:
        STATS["open"] -= 1
        left.cancel()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            path = head.split(b" ", 2)[1]
            if path.endswith(b"/chat/completions"):
                asked = json.loads(body)
                if asked.get("stream"):
                    if not await stream(str(asked["model"]), reader, writer):
                        break
                    continue
                writer.write(answer(json.dumps(WHOLE).encode()))
            elif path.endswith(b"/models"):
                listed = [{"id": name, "object": "model"} for name in MODELS]
                writer.write(answer(json.dumps({"object": "list", "data": listed}).encode()))
            elif path == b"/stats":
                writer.write(answer(json.dumps({**STATS, "aborted_at": list(STATS["aborted_at"])}).encode()))
            else:
                writer.write(answer(b"{}", status=b"404 Not Found"))
            await writer.drain()
    writer.close()


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
