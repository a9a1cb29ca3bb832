"""What the fake Ollama says and how: its plans and faults, recorded exchanges, and HTTP/1.1 on a bare socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings" / "ollama.jsonl"


class Fault(Enum):
    """What goes wrong; `Plan.after` says after how many lines."""

    STATUS = "an error status before the first byte"
    CLOSE = "the connection closes before any header"
    ERROR_LINE = "an error as the last line under status 200"
    NO_DONE = "a clean end without the last message"
    CUT = "the connection closes inside the chunked body"
    RESET = "the connection is reset"
    SILENCE = "nothing more comes"
    GARBAGE = "a line that is not JSON"
    NOT_OBJECT = "a line that is JSON but no object"


@dataclass(frozen=True)
class Plan:
    """How one chat is answered. Times in seconds; `split` writes the bytes in pieces of that many."""

    words: Sequence[str] = ("Hello", " there", ".")
    thinking: Sequence[str] = ()
    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    reason: str = "stop"
    prompt: float = 0.0
    pace: float = 0.0
    fault: Fault | None = None
    after: int = 0
    status: int = 500
    error: str = "an error was encountered while running the model: unexpected EOF"
    split: int | None = None


@dataclass(frozen=True)
class Model:
    """A model that the fake claims to have."""

    name: str
    context: int = 8192
    capabilities: Sequence[str] = ("completion", "tools")
    digest: str = "ab" * 32
    size: int = 9_257_984
    vram: int = 0


@dataclass
class Request:
    """What came: method, path, headers in lower case, and the parsed body."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    body: Any = None


class Chunked:
    """Writes a chunked body; headers go out with the first chunk."""

    def __init__(self, writer: asyncio.StreamWriter, split: int | None) -> None:
        self._writer, self._split = writer, split

    async def start(self) -> None:
        self._writer.write(head(200, {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}))

    async def write(self, data: bytes) -> None:
        step = self._split or len(data)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._writer.drain()
            if self._split:
                await asyncio.sleep(0)

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()


@cache
def recordings() -> dict[str, dict[str, Any]]:
    """Every recorded exchange by its name."""
    lines = RECORDINGS.read_text(encoding="utf-8").splitlines()
    return {each["name"]: each for each in map(json.loads, lines)}


def recording(name: str) -> dict[str, Any]:
    """One recorded exchange: `request`, `status`, `headers`, `body` or `chunks`."""
    return recordings()[name]


def encode(value: Any) -> bytes:
    """JSON as Go writes it: compact, with <, > and & escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()


def reply_bytes(recorded: Mapping[str, Any]) -> bytes:
    """The body of a recorded reply, byte for byte."""
    if "chunks" in recorded:
        return b"".join(encode(chunk["json"]) + b"\n" for chunk in recorded["chunks"])
    body = recorded.get("body", "")
    return body.encode() if isinstance(body, str) else encode(body)


async def replay(writer: asyncio.StreamWriter, recorded: Mapping[str, Any]) -> bool:
    if recorded.get("status") is None:
        return False
    if "chunks" not in recorded:
        return await send(writer, recorded["status"], reply_bytes(recorded), recorded["headers"].get("Content-Type"))
    body = Chunked(writer, None)
    await body.start()
    for chunk in recorded["chunks"]:
        await body.write(encode(chunk["json"]) + b"\n")
    if recorded.get("terminated") is False:
        return False
    await body.end()
    return True


def lines(
    plan: Plan,
    model: str,
    prompt: int,
    context: int,
    body: Mapping[str, Any],
    load: float,
    began: float,
) -> list[dict[str, Any]]:
    """The NDJSON lines of a whole reply."""
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "thinking": thought} for thought in plan.thinking
    ]
    words = list(plan.words) if not plan.calls else []
    reason = plan.reason
    limit = int((body.get("options") or {}).get("num_predict") or 0)
    room = context - prompt
    if body.get("shift") is False and len(words) > room:
        words, reason = words[:room], "length"
    if limit > 0 and len(words) > limit:
        words, reason = words[:limit], "length"
    messages += [{"role": "assistant", "content": word} for word in words]
    if plan.calls:
        calls = [
            {"id": f"call_{index:08x}", "function": {"index": index, "name": name, "arguments": dict(arguments)}}
            for index, (name, arguments) in enumerate(plan.calls)
        ]
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
    lines: list[dict[str, Any]] = [
        {"model": model, "created_at": now(), "message": message, "done": False} for message in messages
    ]
    spent = asyncio.get_running_loop().time() - began + plan.pace * len(messages)
    counts = {
        "total_duration": int(spent * 1e9) + 1_000_000,
        "load_duration": int(load * 1e9),
        "prompt_eval_count": prompt,
        "prompt_eval_duration": int(plan.prompt * 1e9),
        "eval_count": len(messages) + (reason == "stop"),
        "eval_duration": int(plan.pace * len(messages) * 1e9),
    }
    done: dict[str, Any] = {"model": model, "created_at": now(), "message": {"role": "assistant", "content": ""}}
    done |= {"done": True, "done_reason": reason, **{key: value for key, value in counts.items() if value}}
    return [*lines, done]


def joined(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(line["message"]["content"] for line in lines)}
    for line in lines:
        if "tool_calls" in line["message"]:
            message["tool_calls"] = line["message"]["tool_calls"]
    return {**lines[-1], "message": message}


def listed(model: Model) -> dict[str, Any]:
    name = model.name if ":" in model.name else model.name + ":latest"
    details = {"parent_model": "", "format": "gguf", "family": "gemma2", "families": ["gemma2"]}
    details |= {"parameter_size": "4.10M", "quantization_level": "F16"}
    return {
        "name": name,
        "model": name,
        "modified_at": "2026-11-24T23:14:56.432159181Z",
        "size": model.size,
        "digest": model.digest,
        "details": details,
    }


def shown(model: Model) -> dict[str, Any]:
    info = {"general.architecture": "gemma2", "gemma2.context_length": model.context}
    return {
        "modelfile": f"FROM {model.name}\n",
        "template": "{{ .Prompt }}",
        "details": listed(model)["details"],
        "model_info": info,
        "capabilities": list(model.capabilities),
        "modified_at": "2026-11-24T23:14:56.432159181Z",
    }


def local(host: str) -> bool:
    name = host.rsplit(":", 1)[0].strip("[]") if host.count(":") == 1 or "]" in host else host
    return name in ("127.0.0.1", "localhost", "::1", "")


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


_PHRASES = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def send(writer: asyncio.StreamWriter, status: int, body: bytes, content_type: str | None) -> bool:
    headers = {"Content-Type": content_type} if content_type else {}
    writer.write(head(status, {**headers, "Content-Length": str(len(body))}) + body)
    await writer.drain()
    return True


async def error(writer: asyncio.StreamWriter, status: int, text: str) -> bool:
    return await send(writer, status, encode({"error": text}), "application/json; charset=utf-8")


async def read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    request = Request(method, target.partition("?")[0], headers, raw)
    with contextlib.suppress(ValueError):
        request.body = json.loads(raw) if raw else None
    return request
