"""A fake Ollama on a real socket: the native API's wire format, its queue, its faults, and recorded exchanges.

    async with FakeOllama() as ollama:                       # ollama.url
        ollama.say("Hello there")                            # the next chat's answer
        ollama.plan(Plan(words=("a", "b"), fault=Fault.CUT, after=1))
        ollama.play("runner_killed_mid_stream")              # byte for byte what a real one sent
        …
        assert ollama.chats[0]["options"]["num_ctx"] == 8192

What it copies of Ollama 0.24 (each from a recorded exchange in `recordings/ollama.jsonl`): headers wait for the
first token; one JSON line a chunk; slots that make callers wait and never refuse for the loaded model; a reload on
another num_ctx, and 503 only for too many of those; an abort is noticed only when a token is written, never during
the prompt; silent truncation unless `truncate` and `shift` are false; names with `:latest` in lists and without it
in replies; counts that are left out when zero; a foreign Host gets an empty 403.

It speaks HTTP/1.1 itself, because cut bodies, resets and silence are below what a framework lets one do.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import ollama_wire as wire
from tests.fakes.ollama_wire import Fault, Model, Plan, Request, encode, recording, recordings, reply_bytes

__all__ = ["FakeOllama", "Fault", "Model", "Plan", "Request", "encode", "recording", "recordings", "reply_bytes"]


@dataclass
class FakeOllama:
    """The server; an asynchronous context manager. `chats` holds every chat's body, `aborted` counts closed ones."""

    models: Sequence[Model] = (Model("gemma3n"),)
    parallel: int = 1
    max_queue: int = 512
    load_seconds: float = 0.0
    strict_host: bool = True
    requests: list[Request] = field(default_factory=list)
    chats: list[dict[str, Any]] = field(default_factory=list)
    aborted: int = 0
    loads: int = 0
    running: int = 0
    most_running: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        self._plans: deque[Plan | dict[str, Any]] = deque()
        self._slots = asyncio.Semaphore(self.parallel)
        self._loading = asyncio.Lock()
        self._waiting_for_load = 0
        self._loaded: tuple[str, int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = itertools.count(1)
        self.down = False

    # What tests say

    def say(self, text: str) -> None:
        """Answer the next chat with these words."""
        self.plan(Plan(words=[(" " if i else "") + word for i, word in enumerate(text.split(" "))]))

    def plan(self, *plans: Plan) -> None:
        """Answer the next chats like this; without a plan they get `Plan()`."""
        self._plans.extend(plans)

    def play(self, name: str) -> dict[str, Any]:
        """Answer the next chat with a recorded reply, and return the recording."""
        recorded = recording(name)
        self._plans.append(recorded)
        return recorded

    # The server

    async def __aenter__(self) -> FakeOllama:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close the listening socket and every connection, as a SIGTERM does: nothing is drained."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def restart(self) -> None:
        """Listen again on the same port, with nothing loaded."""
        self._loaded = None
        self._slots = asyncio.Semaphore(self.parallel)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (request := await wire.read(reader)) is not None:
                self.requests.append(request)
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False ends the connection."""
        origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
        if (self.strict_host and not wire.local(host)) or (origin and not wire.local(origin.partition("://")[2])):
            return await wire.send(writer, 403, b"", None)
        route = (request.method.replace("HEAD", "GET"), request.path)
        if route == ("POST", "/api/chat"):
            return await self._chat(request, reader, writer)
        status, body = self._plain(route, request)
        if isinstance(body, str):
            return await wire.send(writer, status, body.encode(), "text/plain")
        return await wire.send(writer, status, encode(body), "application/json; charset=utf-8")

    def _plain(self, route: tuple[str, str], request: Request) -> tuple[int, Any]:
        match route:
            case ("GET", "/"):
                return 200, "Ollama is running"
            case ("GET", "/api/version"):
                return 200, {"version": "0.24.0"}
            case ("GET", "/api/tags"):
                return 200, {"models": [wire.listed(model) for model in self.models]}
            case ("GET", "/api/ps"):
                return 200, {"models": self._ps()}
            case ("POST", "/api/show"):
                model = self._find(str((request.body or {}).get("model", "")))
                if model is None:
                    return 404, {"error": f"model '{(request.body or {}).get('model')}' not found"}
                return 200, wire.shown(model)
            case ("POST", "/api/embed"):
                return self._embed(request.body or {})
            case (_, "/api/chat" | "/api/show" | "/api/embed" | "/api/tags" | "/api/ps"):
                return 405, "405 method not allowed"
            case _:
                return 404, "404 page not found"

    def _ps(self) -> list[dict[str, Any]]:
        model = self._find(self._loaded[0]) if self._loaded else None
        if model is None or self._loaded is None:
            return []
        listed = wire.listed(model)
        listed.pop("modified_at")
        expires = "2026-11-24T23:20:36.931867078Z"
        return [{**listed, "expires_at": expires, "size_vram": model.vram, "context_length": self._loaded[1]}]

    def _embed(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        name = str(body.get("model", ""))
        if self._find(name) is None:
            return 404, {"error": f'model "{name}" not found, try pulling it first'}
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        vectors = [[round(len(text) / 100, 4), 0.5, -0.25] for text in inputs]
        count = sum(1 + len(text.split()) for text in inputs)
        return 200, {"model": name, "embeddings": vectors, "total_duration": 27_000_000, "prompt_eval_count": count}

    def _find(self, name: str) -> Model | None:
        wanted = name if ":" in name else name + ":latest"
        full = {(m.name if ":" in m.name else m.name + ":latest"): m for m in self.models}
        return full.get(wanted)

    # Chats

    async def _chat(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        body: Any = request.body
        if body is None:
            text = "missing request body" if not request.raw else "unexpected EOF"
            return await wire.error(writer, 400, text)
        self.chats.append(body)
        plan = self._plans.popleft() if self._plans else Plan()
        if isinstance(plan, dict):
            return await wire.replay(writer, plan)
        name = str(body.get("model", ""))
        if not name:
            return await wire.error(writer, 400, "model is required")
        model = self._find(name)
        if model is None:
            return await wire.error(writer, 404, f"model '{name}' not found")
        if body.get("tools") and "tools" not in model.capabilities:
            return await wire.error(writer, 400, f"registry.ollama.ai/library/{name}:latest does not support tools")
        if body.get("think") and "thinking" not in model.capabilities:
            return await wire.error(writer, 400, f'"{name}" does not support thinking')
        fault = plan.fault
        if fault is Fault.STATUS:
            return await wire.error(writer, plan.status, plan.error)
        if fault is Fault.CLOSE:
            return False
        return await self._generate(plan, model, body, reader, writer)

    async def _generate(
        self,
        plan: Plan,
        model: Model,
        body: Mapping[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        loop = asyncio.get_running_loop()
        began = loop.time()
        context = min(int((body.get("options") or {}).get("num_ctx") or 4096), model.context)
        prompt = 1 + sum(len(str(m.get("content", "")).split()) + 3 for m in body.get("messages") or ())
        if prompt > context:
            if body.get("truncate") is False:
                return await wire.error(writer, 400, "the input length exceeds the context length")
            prompt = context
        load = await self._load(model, context)
        if load is None:
            text = "server busy, please try again.  maximum pending requests exceeded"
            return await wire.error(writer, 503, text)
        # A caller that goes away while it waits for a slot is dropped at once.
        gone = asyncio.ensure_future(reader.read(1))
        slot = asyncio.ensure_future(self._slots.acquire())
        await asyncio.wait({gone, slot}, return_when=asyncio.FIRST_COMPLETED)
        if not slot.done():
            slot.cancel()
            self.aborted += 1
            return False
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            # Shielded: the prompt is worked through to its end whoever goes away meanwhile.
            await asyncio.shield(asyncio.sleep(plan.prompt))
            lines = wire.lines(plan, str(body["model"]), prompt, context, body, load, began)
            return await self._stream(plan, lines, body.get("stream", True), gone, writer)
        finally:
            self.running -= 1
            self._slots.release()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await gone

    async def _load(self, model: Model, context: int) -> float | None:
        """Seconds spent loading; None if too many wait for a load already."""
        if self._loaded == (model.name, context):
            return 0.004
        if self._waiting_for_load >= self.max_queue:
            return None
        self._waiting_for_load += 1
        try:
            async with self._loading:
                if self._loaded != (model.name, context):
                    await asyncio.sleep(self.load_seconds)
                    self._loaded = (model.name, context)
                    self.loads += 1
        finally:
            self._waiting_for_load -= 1
        return max(self.load_seconds, 0.004)

    async def _stream(
        self,
        plan: Plan,
        lines: Sequence[dict[str, Any]],
        stream: bool,
        gone: asyncio.Future[bytes],
        writer: asyncio.StreamWriter,
    ) -> bool:
        if not stream:
            await asyncio.sleep(plan.pace * len(lines))
            return await wire.send(writer, 200, encode(wire.joined(lines)), "application/json; charset=utf-8")
        if plan.fault is Fault.SILENCE and plan.after == 0:
            await gone
            self.aborted += 1
            return False
        body = wire.Chunked(writer, plan.split)
        await body.start()
        for number, line in enumerate(lines):
            if number:
                await asyncio.sleep(plan.pace)
            if gone.done():
                self.aborted += 1
                return False
            if plan.fault is not None and number >= plan.after:
                return await self._break(plan, body, gone, writer)
            await body.write(encode(line) + b"\n")
        await body.end()
        return not gone.done()

    async def _break(
        self, plan: Plan, body: wire.Chunked, gone: asyncio.Future[bytes], writer: asyncio.StreamWriter
    ) -> bool:
        match plan.fault:
            case Fault.ERROR_LINE:
                await body.write(encode({"error": plan.error}) + b"\n")
                await body.end()
            case Fault.GARBAGE:
                await body.write(b'{"model":"gemma3n","mess\n')
                await body.end()
            case Fault.NOT_OBJECT:
                await body.write(b"[1]\n")
                await body.end()
            case Fault.NO_DONE:
                await body.end()
            case Fault.RESET:
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case Fault.SILENCE:
                await gone
                self.aborted += 1
                return False
            case _:
                return False
        return False
