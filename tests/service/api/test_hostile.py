"""A table of more than 200 malformed and hostile requests: none gives a 5xx, a hang, a trace or another's data."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from service import auth
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Script, Turn
from tests.fakes.server import Serving, serving

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]

SECRET = "the-other-tenants-words"
CHAT, RUNS, RESPONSES, EMBED = "/v1/chat/completions", "/v1/runs", "/v1/responses", "/v1/embeddings"
HI = [{"role": "user", "content": "Hi"}]
JSON = {"Content-Type": "application/json"}
NO_HTTP = "Invalid HTTP request received."
"""The server's own words for what its parser does not take (such as an unknown method): no application is asked."""


@dataclass(frozen=True)
class Request:
    """One request; `ok` are the statuses allowed besides 4xx."""

    name: str
    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    ok: tuple[int, ...] = ()


def deep(levels: int, opener: str = "[", closer: str = "]") -> bytes:
    return (opener * levels + "1" + closer * levels).encode()


def bodies() -> Generator[Request]:
    raw = {
        "empty": b"",
        "null": b"null",
        "number": b"5",
        "string": b'"x"',
        "list": b"[]",
        "not json": b"{nope}",
        "cut": b'{"model": "scripted", "messages": [{"role"',
        "trailing": b'{"model": "scripted"} x',
        "bom": b'\xef\xbb\xbf{"model": "scripted"}',
        "utf-16": '{"model": "scripted"}'.encode("utf-16"),
        "latin-1": b'{"model": "caf\xe9"}',
        "nan": b'{"model": "scripted", "temperature": NaN}',
        "infinity": b'{"model": "scripted", "temperature": -Infinity}',
        "huge float": b'{"model": "scripted", "temperature": 1e999}',
        "huge int": b'{"model": "scripted", "seed": ' + b"9" * 400 + b"}",
        "giant int": b'{"model": "scripted", "seed": ' + b"9" * 5000 + b"}",
        "half surrogate": b'{"model": "\\ud800", "messages": [], "input": "\\udfff"}',
        "surrogate key": b'{"\\ud800": 1}',
        "deep list": deep(100_000),
        "deep object": deep(50_000, '{"a":', "}"),
        "just too deep": b'{"model": "scripted", "input": "x", "metadata": ' + deep(70) + b"}",
        "duplicate keys": b'{"model": "a", "model": 5, "input": 1}',
        "nul bytes": b'{"model": "\x00"}',
        "many keys": json.dumps({f"k{i}": i for i in range(20_000)}).encode(),
    }
    for path in (CHAT, RUNS, RESPONSES, EMBED):
        for name, body in raw.items():
            yield Request(f"{path} {name}", "POST", path, body, JSON)
        yield Request(f"{path} no content type", "POST", path, b'{"input": "x"}')
        yield Request(f"{path} form", "POST", path, b"a=b", {"Content-Type": "application/x-www-form-urlencoded"})
        yield Request(f"{path} odd charset", "POST", path, b"{}", {"Content-Type": "application/json; charset=utf-7"})
        yield Request(f"{path} multipart", "POST", path, b"--x--", {"Content-Type": "multipart/form-data; boundary=x"})
        yield Request(f"{path} too large", "POST", path, b'{"x": "' + b"a" * 300_000 + b'"}', JSON)
        yield Request(f"{path} gzip", "POST", path, b"\x1f\x8b\x08", {**JSON, "Content-Encoding": "gzip"})


def fields() -> Generator[Request]:
    chat: list[dict[str, Any]] = [
        *({"model": model} for model in (None, 5, "", [], "x" * 300, "agent/", "agent/nope", "agent/../x", "\u0000")),
        *({"messages": value} for value in (None, "Hi", {}, [], [1], [None], [[]], [{}], [{"role": "king"}])),
        *(
            {"messages": [{"role": role, "content": value}]}
            for role, value in (
                *(
                    ("user", 5),
                    ("user", None),
                    ("user", {}),
                    ("user", [5]),
                    ("user", [{}]),
                    ("user", [{"type": "text"}, 1]),
                ),
                *(
                    ("user", [{"type": "video"}]),
                    ("user", [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),
                ),
                *(("user", [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]), ("tool", "x")),
                *(("assistant", None), ("user", [{"type": "text", "text": 5}]), (5, "x"), (None, "x"), ([], "x")),
            )
        ),
        *({"messages": [{"role": "assistant", "tool_calls": value}]} for value in (5, [5], [{}], [{"id": 5}], "x")),
        *({"temperature": value} for value in (-1, 3, "hot", [], {}, True, 1e308)),
        *({"top_p": value} for value in (-0.1, 1.1, "x")),
        *({"max_tokens": value} for value in (0, -1, 1.5, "x", 2**40)),
        *({"n": value} for value in (0, 2, 1000, "x")),
        *({"stop": value} for value in (5, [5], [""], ["a"] * 5, {})),
        *({"seed": value} for value in ("x", 1.5, [])),
        *(
            {"tools": value}
            for value in (
                5,
                "x",
                [5],
                [{}],
                [{"type": "web"}],
                [{"type": "function"}],
                [{"type": "function", "function": {}}],
            )
        ),
        *(
            {"tools": [{"type": "function", "function": {"name": name}}]}
            for name in ("", "a b", "x" * 65, "../x", 5, None, "é")
        ),
        *(
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": value}}]}
            for value in (5, [], {"type": "nope"}, {"properties": 5}, {"$ref": 5})
        ),
        {"tools": [{"type": "function", "function": {"name": "f"}}] * 2},
        {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(200)]},
        *({"tool_choice": value} for value in (5, "maybe", {}, {"type": "function"}, "required", [])),
        *(
            {"response_format": value}
            for value in (
                5,
                "json",
                {},
                {"type": "xml"},
                {"type": "json_schema"},
                {"type": "json_schema", "json_schema": {"schema": {"type": "nope"}}},
            )
        ),
        *({"stream_options": value} for value in (5, [], {"include_usage": "perhaps"}, {"include_usage": True})),
        *({"stream": value} for value in ("perhaps", 5, [])),
        *({name: 1} for name in ("unknown", "__class__", "constructor", "x" * 500)),
        {"functions": [{"name": "f"}]},
        {"modalities": ["audio"]},
        {"metadata": {"a": 5}},
    ]
    for number, change in enumerate(chat):
        body = json.dumps({"model": "scripted", "messages": HI, **change}).encode()
        yield Request(f"chat {number} {str(change)[:60]}", "POST", CHAT, body, JSON)
    runs: list[dict[str, Any]] = [
        *(
            {"input": value}
            for value in (None, 5, "", [], [{}], [{"role": "tool", "content": "x"}], [{"role": "user", "content": []}])
        ),
        *({"agent": value} for value in (5, "nope", "x" * 100, "../x", "")),
        *({"tools": value} for value in ("x", ["nope"], [5], ["x"] * 200)),
        *(
            {"limits": value}
            for value in (5, {"steps": 0}, {"steps": 10**9}, {"seconds": -1}, {"nope": 1}, {"tokens": 0}, {"cost": 0})
        ),
        *({"session_id": value} for value in (5, "x", "sess_stable_" + "0" * 28, "'; DROP TABLE runs; --", "x" * 200)),
        *({"on_disconnect": "explode"}, {"on_active_run": "queue"}, {"background": "x"}, {"stream": {}}),
        *(
            {"client_tools": value}
            for value in ([{"name": "a b"}], [{"name": "calculator"}], [{"name": "f", "parameters": {"type": 5}}])
        ),
        *({"output_schema": value} for value in (5, {"type": "nope"}, {"$ref": "http://x/y"} | {"type": 5})),
        *({"metadata": value} for value in (5, {"a": 5}, {f"k{i}": "v" for i in range(17)})),
        {"tool_choice": "nope"},
        {"unknown": 1},
    ]
    for number, change in enumerate(runs):
        yield Request(
            f"run {number} {str(change)[:60]}", "POST", RUNS, json.dumps({"input": "Hi", **change}).encode(), JSON
        )
    responses: list[dict[str, Any]] = [
        *(
            {"input": value}
            for value in (
                None,
                5,
                [],
                [5],
                [{"type": "nope"}],
                [{"type": "function_call"}],
                [{"type": "function_call_output"}],
            )
        ),
        *({"previous_response_id": value} for value in ("x", "resp_" + "0" * 29, 5, "../x", "run_x")),
        *({"tools": value} for value in ([{"type": "web_search"}], [{"type": "function"}], 5)),
        *({"text": value} for value in (5, {"format": 5}, {"format": {"type": "xml"}})),
        *(
            {"conversation": "c"},
            {"prompt": {"id": "p"}},
            {"truncation": "maybe"},
            {"max_output_tokens": 0},
            {"nope": 1},
        ),
    ]
    for number, change in enumerate(responses):
        body = json.dumps({"model": "scripted", "input": "Hi", **change}).encode()
        yield Request(f"response {number} {str(change)[:60]}", "POST", RESPONSES, body, JSON)
    for number, value in enumerate((None, 5, "", [], [""], [5], [[1, 2]], {}, ["x"] * 3000)):
        body = json.dumps({"model": "scripted", "input": value}).encode()
        yield Request(f"embedding {number}", "POST", EMBED, body, JSON)


def paths() -> Generator[Request]:
    ids = (
        "x",
        "run_",
        "run_" + "g" * 29,
        "run_" + "0" * 29,
        "run_" + "0" * 3000,
        "%00",
        "..%2f..%2fetc",
        "%ff%fe",
        "'%20or%201=1",
    )
    for each in ids:
        for method, path in (
            *(("GET", f"/v1/runs/{each}"), ("GET", f"/v1/runs/{each}/events"), ("POST", f"/v1/runs/{each}/cancel")),
            *(("GET", f"/v1/responses/{each}"), ("DELETE", f"/v1/sessions/{each}"), ("GET", f"/v1/models/{each}")),
        ):
            yield Request(f"{method} {path[:60]}", method, path)
    for query in (
        "limit=0",
        "limit=101",
        "limit=x",
        "before=x",
        "status=odd",
        "before=run_" + "0" * 29,
        "limit=99999999999999999999",
    ):
        yield Request(f"list {query[:40]}", "GET", f"/v1/runs?{query}")
    yield Request("list session", "GET", "/v1/runs?session_id=%27%3B--", ok=(200,))
    for method in ("PUT", "PATCH", "TRACE", "BREW"):
        yield Request(f"{method} runs", method, "/v1/runs")
    for path in (
        "/v1",
        "/v2/runs",
        "//v1/runs",
        "/v1/runs/../../etc/passwd",
        "/%2e%2e/secret",
        "/v1/chat/completions/x",
        "/.env",
    ):
        yield Request(f"path {path}", "GET", path)


def mine_and_forged(run_id: str) -> Generator[Request]:
    """SSE reconnects and forged ids, with a run of another key's."""
    for value in ("-1", "x", "1e3", "9" * 30, "1;2", "1 2", "0x10", "\u0661".encode().decode("latin-1")):
        yield Request(f"last id {value[:20]}", "GET", f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": value})
    for query in ("after=-1", "after=x", "after=99999999999", "stream=perhaps", "limit=0", "stream=false&limit=9999"):
        yield Request(f"events {query}", "GET", f"/v1/runs/{run_id}/events?{query}")
    for path in (f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/events", f"/v1/responses/resp_{run_id[4:]}"):
        yield Request(f"other's {path[:20]}", "GET", path)
    yield Request("other's cancel", "POST", f"/v1/runs/{run_id}/cancel")
    yield Request("other's feedback", "POST", f"/v1/runs/{run_id}/feedback", b'{"thumbs": "up"}', JSON)
    for key in ("", "x" * 256, "a b", "\xe9"):
        yield Request(f"idempotency {key[:10]!r}", "POST", RUNS, b'{"input": "Hi"}', {**JSON, "Idempotency-Key": key})
    yield Request("long header", "GET", "/v1/models", headers={"X-Request-Id": "x" * 10_000}, ok=(200,))
    yield Request("odd request id", "GET", "/v1/models", headers={"X-Request-Id": "a\tb"}, ok=(200,))
    yield Request("range", "GET", "/v1/models", headers={"Range": "bytes=0-99999999999"}, ok=(200,))


STATIC = [*bodies(), *fields(), *paths()]


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[Serving, str, dict[str, str]]]:
    backend = ScriptedBackend(Script.of(Turn(text=SECRET)))
    async with serving(tmp_path_factory.mktemp("hostile"), backend, api_key="boot", max_body=256 * 1024) as server:
        keys: list[dict[str, str]] = []
        for _ in range(2):
            token, record = auth.make_key("k", ("chat", "runs"))
            await server.parts.store.keys.add(record)
            keys.append({"Authorization": f"Bearer {token}"})
        run = await server.client.post("/v1/runs", json={"input": SECRET}, headers=keys[0])
        yield server, run.json()["id"], keys[1]


def test_the_table_is_large_enough() -> None:
    """More than 200 requests, each of its own."""
    assert len({(each.method, each.path, each.body, str(each.headers)) for each in STATIC}) >= 300


def has_error_shape(answer: httpx.Response) -> bool:
    try:
        return set(answer.json()) == {"error"}
    except ValueError:
        return False


async def test_none_of_them_gets_through(scene: tuple[Serving, str, dict[str, str]]) -> None:
    """Each is answered in time with a 4xx in OpenAI's shape, tells nothing of the inside, and leaves no place taken."""
    server, run_id, key = scene
    wrong: list[str] = []
    for each in [*STATIC, *mine_and_forged(run_id)]:
        headers = {**key, **{name: value.encode("latin-1") for name, value in each.headers.items()}}
        async with asyncio.timeout(60):
            answer = await server.client.request(each.method, each.path, content=each.body, headers=headers)
        text = answer.text
        fine = 400 <= answer.status_code < 500 or answer.status_code in each.ok
        if not fine or SECRET in text or "Traceback" in text or ".py" in text:
            wrong.append(f"{each.name}: {answer.status_code} {text[:120]}")
        elif answer.status_code >= 400 and text != NO_HTTP and not has_error_shape(answer):
            wrong.append(f"{each.name}: shape {text[:120]}")
    assert not wrong, "\n".join(wrong)
    gate = server.parts.admission.gate
    assert (gate.places, gate.active) == (gate.total, 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=["version", "tls", "long path", "negative length", "smuggling", "bad chunk", "many headers", "twice"],
)
async def test_broken_http(scene: tuple[Serving, str, dict[str, str]], raw: bytes) -> None:
    """Bytes that are no proper HTTP never crash the server: it answers 4xx or closes, and still serves others."""
    server = scene[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    writer.write(raw)
    writer.write_eof()
    async with asyncio.timeout(60):
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
    writer.close()
    assert not answer.startswith(b"HTTP/1.1 5")
    assert (await server.client.get("/health")).status_code == 200
