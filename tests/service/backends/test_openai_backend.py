"""The OpenAI-compatible backend: odd streams, fragments of calls, and every refusal as its error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.backends import create
from service.backends.base import (
    BackendError,
    BackendFailed,
    BackendOverloaded,
    BackendProtocolError,
    BackendRejected,
    BackendUnavailable,
    ChatRequest,
    ContextTooLong,
    Delta,
    Message,
    ModelNotFound,
    Sampling,
    ToolCall,
    ToolSpec,
)
from service.backends.broken import EndedEarly
from service.backends.openai import OpenAIBackend
from service.errors import StartupError
from service.settings import Settings
from tests.fakes.openai_server import FakeOpenAI

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]


@pytest.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def backend(server: FakeOpenAI) -> AsyncIterator[OpenAIBackend]:
    backend = OpenAIBackend(server.url, api_key="sk-test", use_environment=False)
    yield backend
    await backend.aclose()


def ask(**fields: Any) -> ChatRequest:
    return ChatRequest("m", fields.pop("messages", (Message("user", "hi"),)), **fields)


def piece(content: Any = None, reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content, **delta}, "finish_reason": reason}]}


async def collect(backend: OpenAIBackend, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in backend.chat(request)]


class TestStreams:
    async def test_an_odd_stream_reads_as_it_was_meant(self, server: FakeOpenAI, backend: OpenAIBackend) -> None:
        """Comments, a placeholder first event, null and empty fields, usage after the end."""
        server.stream(
            ": ping\n\n",
            piece(None, role="assistant"),
            piece("", tool_calls=[]),
            piece(None, reasoning_content="hm"),
            "event: x\nid: 4\n",
            piece("Hel"),
            piece("lo", extra={"a": 1}),
            piece(None, "stop"),
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        )
        deltas = await collect(backend, ask())
        assert [(d.text, d.thinking) for d in deltas[:-1]] == [("", "hm"), ("Hel", ""), ("lo", "")]
        finish = deltas[-1].finish
        assert finish is not None
        assert (finish.reason, finish.usage.prompt_tokens, finish.usage.completion_tokens) == ("stop", 3, 2)

    async def test_fragments_of_calls_are_put_together(self, server: FakeOpenAI, backend: OpenAIBackend) -> None:
        """Two calls whose arguments come in pieces, interleaved: each once, complete, in order."""
        server.stream(
            piece(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]),
            piece(tool_calls=[{"index": 0, "function": {"arguments": '{"x"'}}]),
            piece(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]),
            piece(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
            piece(None, "tool_calls"),
        )
        (last,) = await collect(backend, ask(tools=(ToolSpec("f", "", {"type": "object"}),)))
        assert last.tool_calls == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "{}"))
        assert last.finish is not None
        assert last.finish.reason == "tool_calls"

    async def test_a_finish_reason_is_enough(self, server: FakeOpenAI, backend: OpenAIBackend) -> None:
        """No [DONE] and even a cut after it do not spoil an answer that was complete."""
        server.stream(piece("a", "stop"), done=False)
        server.stream(piece("b", "length"), done=False, cut=True)
        assert (await collect(backend, ask()))[0].text == "a"
        last = (await collect(backend, ask()))[-1].finish
        assert last is not None
        assert last.reason == "length"

    async def test_the_connection_is_used_again(self, server: FakeOpenAI, backend: OpenAIBackend) -> None:
        """A stream that ended gives its connection back."""
        for _ in range(4):
            server.stream(piece("a", "stop"))
            await collect(backend, ask())
        assert server.connections == 1

    @pytest.mark.parametrize(
        ("events", "options", "error"),
        [
            ((piece("a"),), {}, EndedEarly),
            ((piece("a"),), {"done": False, "cut": True}, BackendProtocolError),
            ((piece("a"), "data: {oops\n\n"), {}, BackendProtocolError),
            ((piece("a"), "data: 7\n\n"), {}, BackendProtocolError),
            ((piece("a"), {"error": {"message": "CUDA out of memory"}}), {}, BackendFailed),
        ],
    )
    async def test_a_stream_that_breaks_says_so_after_what_came(
        self, server: FakeOpenAI, backend: OpenAIBackend, events: Any, options: Any, error: type[BackendError]
    ) -> None:
        """The text arrives, then the error, which is not from before the first byte."""
        server.stream(*events, **options)
        seen: list[str] = []

        async def run() -> None:
            async for delta in backend.chat(ask()):
                seen.append(delta.text)

        with pytest.raises(BackendError) as problem:
            await run()
        assert (seen, type(problem.value), problem.value.before_first_byte) == (["a"], error, False)


class TestRequest:
    async def test_the_body_is_openais(self, server: FakeOpenAI, backend: OpenAIBackend) -> None:
        """Key, sampling, tools, schema, calls and images in the API's own form; nothing that was not given."""
        server.stream(piece("a", "stop"))
        server.stream(piece("a", "stop"))
        messages = (
            Message("user", "look", images=("QUJD",)),
            Message("assistant", tool_calls=(ToolCall("c", "f", '{"x":1}'),)),
            Message("tool", "done", tool_call_id="c", name="f"),
        )
        schema = {"type": "object"}
        await collect(backend, ask(messages=messages, sampling=Sampling(temperature=0.0, max_tokens=5), format=schema))
        await collect(backend, ask(format="json"))
        first, second = server.bodies
        assert server.headers[0]["authorization"] == "Bearer sk-test"
        assert (first["temperature"], first["max_tokens"], first["stream_options"]) == (0.0, 5, {"include_usage": True})
        assert first["response_format"]["json_schema"]["schema"] == schema
        assert first["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,QUJD"
        assert first["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x":1}'}
        assert first["messages"][2] == {"role": "tool", "content": "done", "tool_call_id": "c"}
        assert set(second) == {"model", "messages", "stream", "stream_options", "response_format"}

    async def test_models_and_readiness(self, backend: OpenAIBackend, server: FakeOpenAI) -> None:
        """vLLM's context length is taken from its list."""
        server.models = [{"id": "m", "max_model_len": 2048}]
        (model,) = await backend.models()
        assert (model.name, model.context) == ("m", 2048)
        await backend.ready("m")
        with pytest.raises(ModelNotFound, match="nope"):
            await backend.ready("nope")

    async def test_embeddings_come_in_the_order_of_the_inputs(self, server: FakeOpenAI, backend: OpenAIBackend) -> None:
        """Whatever order the server answers in."""
        rows = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
        server.refuse(200, {"data": rows, "usage": {"prompt_tokens": 4}})
        result = await backend.embed("m", ["a", "b"])
        assert (list(result.vectors), result.prompt_tokens) == ([[1.0], [2.0]], 4)


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (400, {"error": {"message": "bad", "type": "invalid_request_error"}}, BackendRejected),
            (400, {"error": {"message": "long", "code": "context_length_exceeded"}}, ContextTooLong),
            (400, {"error": {"message": "long", "type": "exceed_context_size_error", "code": 400}}, ContextTooLong),
            (400, {"message": "This model's maximum context length is 2048 tokens."}, ContextTooLong),
            (401, {"error": {"message": "no"}}, BackendUnavailable),
            (404, {"error": {"message": "no model"}}, ModelNotFound),
            (429, {"error": {"message": "slow down"}}, BackendOverloaded),
            (500, {"error": "text"}, BackendFailed),
            (502, ["odd"], BackendFailed),
            (503, "down", BackendOverloaded),
        ],
    )
    async def test_a_status_becomes_its_error(
        self, server: FakeOpenAI, backend: OpenAIBackend, status: int, body: Any, error: type[BackendError]
    ) -> None:
        """Before the first byte, in one line, without our key in it."""
        server.refuse(status, body)
        with pytest.raises(BackendError) as problem:
            await collect(backend, ask())
        assert type(problem.value) is error
        assert problem.value.before_first_byte
        assert "\n" not in problem.value.message
        assert "sk-test" not in problem.value.message

    async def test_it_needs_an_address(self) -> None:
        """The settings say which variable is missing."""
        with pytest.raises(StartupError, match="AGENT_LOOP_OPENAI_URL"):
            create(Settings(backend="openai"))
