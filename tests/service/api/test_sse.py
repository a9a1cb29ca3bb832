"""Event streams at the ASGI level: pings, readers that are slow or leave, and the end at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.api.sse import PING, EventStream
from service.telemetry import Metrics, names
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]


@dataclass
class Peer:
    """The server's side of a connection. `stuck`: the client does not read, so no send returns after the headers."""

    stuck: bool = False
    chunks: list[bytes] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] != "http.response.body":
            return
        self.chunks.append(message["body"])
        self.ended = not message["more_body"]
        if self.stuck:
            await asyncio.Event().wait()


@dataclass
class Source:
    """Makes chunks, `pause` seconds apart, and knows how many were asked for and whether it was closed."""

    count: int
    pause: float = 0.0
    made: int = 0
    closed: bool = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            for _ in range(self.count):
                await asyncio.sleep(self.pause)
                self.made += 1
                yield b"data: x\n\n"
        finally:
            self.closed = True


async def served(stream: EventStream, peer: Peer) -> None:
    async with asyncio.timeout(60):
        await stream({"type": "http"}, peer.receive, peer.send)


async def test_silence_is_filled_with_pings() -> None:
    """While nothing comes, comments keep the connection from being taken for dead; data follow when they come."""
    peer, source = Peer(), Source(1, pause=0.6)
    await served(EventStream(source.chunks(), Metrics(), ping_seconds=0.05), peer)
    assert peer.chunks.count(PING) >= 2
    assert [chunk for chunk in peer.chunks if chunk != PING] == [b"data: x\n\n", b""]
    assert peer.ended


async def test_a_busy_stream_has_no_pings() -> None:
    """Data are sign of life enough."""
    peer, source = Peer(), Source(200)
    await served(EventStream(source.chunks(), Metrics(), ping_seconds=30), peer)
    assert PING not in peer.chunks
    assert len(peer.chunks) == 201


async def test_a_reader_that_never_reads_is_dropped() -> None:
    """Nothing is made ahead of what the client takes, and after a while it counts as gone."""
    peer, source, gone = Peer(stuck=True), Source(1000), asyncio.Event()

    async def leave() -> None:
        gone.set()

    metrics = Metrics()
    await served(EventStream(source.chunks(), metrics, gone=leave, send_seconds=0.2), peer)
    assert gone.is_set()
    assert (len(peer.chunks), source.made, source.closed) == (1, 1, True)
    assert metrics.value(names.STREAMS_ACTIVE) == 0


async def test_leaving_closes_the_source() -> None:
    """At once, also while it waits for its next chunk."""
    peer, source, gone = Peer(), Source(1000, pause=0.01), asyncio.Event()

    async def leave() -> None:
        gone.set()

    serving = asyncio.create_task(served(EventStream(source.chunks(), Metrics(), gone=leave), peer))
    await eventually(lambda: len(peer.chunks) > 3)
    peer.left.set()
    await serving
    assert (gone.is_set(), source.closed, peer.ended) == (True, True, False)


async def test_shutdown_says_farewell() -> None:
    """When the time for live work is up, the stream ends with a word about it, and properly."""
    peer, source, over = Peer(), Source(1000, pause=0.01), asyncio.Event()
    stream = EventStream(source.chunks(), Metrics(), over=over, farewell=b"data: bye\n\n")
    serving = asyncio.create_task(served(stream, peer))
    await eventually(lambda: len(peer.chunks) > 3)
    over.set()
    await serving
    assert peer.chunks[-2:] == [b"data: bye\n\n", b""]
    assert (source.closed, peer.ended) == (True, True)
