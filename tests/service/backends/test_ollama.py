"""The Ollama backend against recorded replies of a real one, and against a fake with every fault."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from service.backends.base import (
    Backend,
    BackendError,
    BackendFailed,
    BackendOverloaded,
    BackendProtocolError,
    BackendRejected,
    BackendStalled,
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
from service.backends.ollama import OllamaBackend, full, short
from service.backends.transport import Timeouts
from tests.fakes.ollama import FakeOllama, Fault, Model, Plan, recording, recordings

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]

WEATHER = ToolSpec("get_weather", "Current weather", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as fake:
        yield fake


@pytest.fixture
async def backend(ollama: FakeOllama) -> AsyncIterator[OllamaBackend]:
    backend = OllamaBackend(ollama.url, parallelism=4)
    yield backend
    await backend.aclose()


def ask(text: str = "hi", **fields: Any) -> ChatRequest:
    return ChatRequest(fields.pop("model", "gemma3n"), (Message("user", text),), **fields)


async def collect(backend: Backend, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in backend.chat(request)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def failing(backend: Backend, request: ChatRequest) -> tuple[str, BackendError]:
    """The text that came and the error that ended it."""
    seen: list[Delta] = []

    async def run() -> None:
        async for delta in backend.chat(request):
            seen.append(delta)

    with pytest.raises(BackendError) as error:
        await run()
    return text(seen), error.value


GOOD_STREAMS = [
    name
    for name, each in recordings().items()
    if each["request"].get("path") == "/api/chat"
    and each.get("status") == 200
    and each.get("chunks")
    and each["chunks"][-1]["json"].get("done")
]


class TestRecordedReplies:
    @pytest.mark.parametrize("name", GOOD_STREAMS)
    async def test_a_recorded_stream_reads_as_it_was_meant(
        self, ollama: FakeOllama, backend: OllamaBackend, name: str
    ) -> None:
        """Text, calls, reason and counts equal what the recording's lines say when put together."""
        recorded = ollama.play(name)
        deltas = await collect(backend, ask())
        lines = [chunk["json"] for chunk in recorded["chunks"]]
        assert text(deltas) == "".join(line["message"].get("content") or "" for line in lines)
        calls = [call for line in lines for call in line["message"].get("tool_calls") or ()]
        assert [(c.id, c.name, json.loads(c.arguments)) for d in deltas for c in d.tool_calls] == [
            (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls
        ]
        finish = deltas[-1].finish
        assert finish is not None
        want = "tool_calls" if calls else lines[-1]["done_reason"]
        assert finish.reason == want
        assert finish.usage.prompt_tokens == lines[-1].get("prompt_eval_count", 0)
        assert finish.usage.completion_tokens == lines[-1].get("eval_count", 0)
        assert [d.finish for d in deltas[:-1]] == [None] * (len(deltas) - 1)

    def test_there_are_recorded_streams_of_each_kind(self) -> None:
        """The parametrisation above is not empty, and has text, a cut answer and a tool call."""
        assert {"chat_stream_warm", "chat_num_predict_length_stream", "tools_call_stream"} <= set(GOOD_STREAMS)

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("chat_unknown_model", ModelNotFound),
            ("numctx_history_truncate_false_stream", ContextTooLong),
            ("tools_unsupported_template_stream", BackendRejected),
            ("chat_think_unsupported", BackendRejected),
            ("chat_wrong_option_type", BackendRejected),
            ("format_unknown_string_stream", BackendRejected),
            ("format_bad_schema", BackendRejected),
            ("chat_keep_alive_bad", BackendRejected),
            ("chat_malformed_json", BackendRejected),
            ("queue_other_model_3_tiny", BackendOverloaded),
            ("runner_killed_nonstream", BackendFailed),
            ("server_sigterm_nonstream", BackendUnavailable),
            ("host_header_foreign", BackendUnavailable),
        ],
    )
    async def test_a_recorded_refusal_becomes_its_error(
        self, ollama: FakeOllama, backend: OllamaBackend, name: str, error: type[BackendError]
    ) -> None:
        """Before the first byte, with one line that names the model or the address."""
        ollama.play(name)
        seen, problem = await failing(backend, ask())
        assert type(problem) is error
        assert (seen, problem.before_first_byte) == ("", True)
        assert "\n" not in problem.message
        assert "gemma3n" in problem.message or ollama.url in problem.message

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("runner_killed_mid_stream", BackendFailed),
            ("repeat_guard_stream_ends_without_done", EndedEarly),
            ("server_sigterm_mid_stream", BackendProtocolError),
            ("server_sigkill_mid_stream", BackendProtocolError),
        ],
    )
    async def test_a_recorded_break_is_told_after_what_came(
        self, ollama: FakeOllama, backend: OllamaBackend, name: str, error: type[BackendError]
    ) -> None:
        """The text that was sent arrives, then the error says that it is not the first byte any more."""
        recorded = ollama.play(name)
        seen, problem = await failing(backend, ask())
        sent = [chunk["json"].get("message", {}).get("content", "") for chunk in recorded["chunks"]]
        assert seen == "".join(sent) != ""
        assert type(problem) is error
        assert not problem.before_first_byte

    async def test_capabilities_come_from_show(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """A recorded `/api/show` has the fields that the fake's own has."""
        real = recording("show_tools_template")["body"]
        assert real["capabilities"] == ["completion", "tools"]
        architecture = real["model_info"]["general.architecture"]
        assert isinstance(real["model_info"][f"{architecture}.context_length"], int)
        (model,) = await backend.models()
        assert (model.name, model.tools, model.context) == ("gemma3n", True, 8192)


class TestRequest:
    async def test_what_keeps_the_context_honest_is_always_sent(
        self, ollama: FakeOllama, backend: OllamaBackend
    ) -> None:
        """num_ctx, truncate and shift go with every chat, keep_alive too."""
        await collect(backend, ask())
        (body,) = ollama.chats
        assert body["options"] == {"num_ctx": 8192}
        assert (body["truncate"], body["shift"], body["stream"], body["keep_alive"]) == (False, False, True, "30m")
        assert "tools" not in body
        assert "format" not in body
        assert "think" not in body

    async def test_sampling_uses_ollamas_names(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """What is not given is not sent, so the model's own defaults stay; 0 is given."""
        sampling = Sampling(temperature=0.0, top_k=5, max_tokens=7, stop=("x",), seed=1)
        await collect(backend, ask(sampling=sampling, format={"type": "object"}, think=False))
        (body,) = ollama.chats
        assert body["options"] == {
            "num_ctx": 8192,
            "temperature": 0.0,
            "top_k": 5,
            "seed": 1,
            "num_predict": 7,
            "stop": ["x"],
        }
        assert (body["format"], body["think"]) == ({"type": "object"}, False)

    async def test_a_tool_conversation_has_ollamas_form(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """Arguments are objects (even if the model once wrote nonsense), results carry the tool's name."""
        messages = (
            Message("user", "weather?"),
            Message(
                "assistant",
                tool_calls=(ToolCall("a", "get_weather", '{"city":"Oslo"}'), ToolCall("b", "get_weather", "{oops")),
            ),
            Message("tool", "rain", tool_call_id="a", name="get_weather"),
        )
        await collect(backend, ChatRequest("gemma3n", messages, tools=(WEATHER,)))
        (body,) = ollama.chats
        calls = [call["function"]["arguments"] for call in body["messages"][1]["tool_calls"]]
        assert calls == [{"city": "Oslo"}, {"invalid": "{oops"}]
        assert body["messages"][2] == {
            "role": "tool",
            "content": "rain",
            "tool_name": "get_weather",
            "tool_call_id": "a",
        }
        assert body["tools"][0]["function"]["name"] == "get_weather"

    async def test_lone_surrogates_do_not_break_the_request(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """Text that has no UTF-8 form is replaced, not a crash."""
        await collect(backend, ask("a\ud800b"))
        assert ollama.chats[0]["messages"][0]["content"] == "a?b"


class TestEnds:
    async def test_the_connection_is_used_again(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """A call that ends gives its connection back to the pool."""
        for _ in range(5):
            await collect(backend, ask())
        assert ollama.connections == 1

    @pytest.mark.parametrize("split", [1, 2, 3, 7])
    async def test_bytes_may_be_cut_anywhere(self, ollama: FakeOllama, backend: OllamaBackend, split: int) -> None:
        """Pieces inside a character or a JSON token read as the whole does."""
        ollama.plan(Plan(words=("Grüße", " 🦙", " \u2028x", ' "q"'), split=split))
        assert text(await collect(backend, ask())) == 'Grüße 🦙 \u2028x "q"'

    @pytest.mark.parametrize(
        ("fault", "early", "late"),
        [
            (Fault.CLOSE, BackendUnavailable, None),
            (Fault.CUT, BackendUnavailable, BackendProtocolError),
            (Fault.RESET, BackendUnavailable, BackendProtocolError),
            (Fault.GARBAGE, BackendProtocolError, BackendProtocolError),
            (Fault.NOT_OBJECT, BackendProtocolError, BackendProtocolError),
            (Fault.ERROR_LINE, BackendFailed, BackendFailed),
            (Fault.NO_DONE, EndedEarly, EndedEarly),
        ],
    )
    async def test_every_end_has_its_error(
        self,
        ollama: FakeOllama,
        backend: OllamaBackend,
        fault: Fault,
        early: type[BackendError],
        late: type[BackendError] | None,
    ) -> None:
        """Each broken end, at once and after two words, is an error of its own kind; and the next call works."""
        ollama.plan(Plan(fault=fault))
        seen, problem = await failing(backend, ask())
        assert (seen, type(problem), problem.before_first_byte) == ("", early, True)
        if late is not None:
            ollama.plan(Plan(fault=fault, after=2))
            seen, problem = await failing(backend, ask())
            assert (seen, type(problem), problem.before_first_byte) == ("Hello there", late, False)
        assert text(await collect(backend, ask())) == "Hello there."

    @pytest.mark.parametrize(("after", "seen"), [(0, ""), (1, "Hello")])
    async def test_silence_is_bounded(self, ollama: FakeOllama, after: int, seen: str) -> None:
        """Silence ends a call: before the first byte by the one limit, after it by the other; upstream is closed."""
        limits = Timeouts(first_byte=0.2, stall=0.2)
        backend = OllamaBackend(ollama.url, timeouts=limits)
        ollama.plan(Plan(fault=Fault.SILENCE, after=after))
        got, problem = await failing(backend, ask())
        assert (got, type(problem), problem.before_first_byte) == (seen, BackendStalled, not after)
        await backend.aclose()
        await _until(lambda: ollama.aborted == 1)

    async def test_a_short_stall_limit_does_not_cut_the_wait_for_the_first_byte(self, ollama: FakeOllama) -> None:
        """Loading and the prompt may take longer than a pause within the answer."""
        backend = OllamaBackend(ollama.url, timeouts=Timeouts(first_byte=20, stall=0.2))
        ollama.plan(Plan(prompt=0.5))
        assert text(await collect(backend, ask())) == "Hello there."
        await backend.aclose()

    async def test_nobody_there(self) -> None:
        """A refused connection and a name that does not exist are unavailability, at once."""
        for url in ("http://127.0.0.1:1", "http://no-such-host.invalid:11434"):
            backend = OllamaBackend(url)
            _, problem = await failing(backend, ask())
            assert type(problem) is BackendUnavailable
            with pytest.raises(BackendUnavailable):
                await backend.ready("gemma3n")
            await backend.aclose()


class TestAbort:
    async def test_closing_the_stream_closes_upstream(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """At the next token Ollama sees it."""
        ollama.plan(Plan(words=["w "] * 500, pace=0.01))
        stream: Any = backend.chat(ask())
        await anext(stream)
        await stream.aclose()
        await _until(lambda: ollama.aborted == 1 and ollama.running == 0)

    async def test_cancelling_the_task_closes_upstream(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """Also while it waits for the first byte, where Ollama finishes the prompt first."""
        ollama.plan(Plan(words=["w "] * 500, pace=0.01, prompt=0.3))
        with anyio.move_on_after(0.05):
            await collect(backend, ask())
        assert ollama.running == 1
        await _until(lambda: ollama.aborted == 1 and ollama.running == 0)
        assert text(await collect(backend, ask())) == "Hello there."


class TestContext:
    async def test_a_long_prompt_is_an_error_not_a_cut(self, ollama: FakeOllama) -> None:
        """It is refused by name, the fake cuts silently unless told not to, as Ollama does."""
        backend = OllamaBackend(ollama.url, num_ctx=256)
        _, problem = await failing(backend, ask("word " * 300))
        assert type(problem) is ContextTooLong
        await backend.aclose()

    async def test_an_answer_that_fills_the_context_says_length(self, ollama: FakeOllama) -> None:
        """It stops at the end of the context instead of forgetting its beginning."""
        backend = OllamaBackend(ollama.url, num_ctx=256)
        ollama.plan(Plan(words=["w "] * 1000))
        finish = (await collect(backend, ask()))[-1].finish
        assert finish is not None
        assert finish.reason == "length"
        assert finish.usage.total_tokens == finish.usage.context_tokens == 256
        await backend.aclose()

    async def test_the_models_own_limit_counts_where_it_is_smaller(self) -> None:
        """Once the models were listed, the share used is of the context that Ollama really gives."""
        async with FakeOllama(models=[Model("small", context=128)]) as ollama:
            backend = OllamaBackend(ollama.url)
            (model,) = await backend.models()
            finish = (await collect(backend, ask(model="small")))[-1].finish
            assert finish is not None
            assert model.context == finish.usage.context_tokens == 128
            await backend.aclose()

    async def test_one_context_size_means_one_load(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """Calls of any kind do not make Ollama load the model again."""
        for sampling in (Sampling(), Sampling(max_tokens=1), Sampling(temperature=1.0)):
            await collect(backend, ask(sampling=sampling))
        assert ollama.loads == 1


class TestModels:
    async def test_ready_knows_the_tag(self) -> None:
        """`tiny` is there as `tiny:latest`; other tags are other models."""
        async with FakeOllama(models=[Model("tiny"), Model("gemma3n:e4b")]) as ollama:
            backend = OllamaBackend(ollama.url)
            await backend.ready("tiny")
            await backend.ready("tiny:latest")
            await backend.ready("gemma3n:e4b")
            with pytest.raises(ModelNotFound, match="ollama pull gemma3n"):
                await backend.ready("gemma3n")
            assert [model.name for model in await backend.models()] == ["tiny", "gemma3n:e4b"]
            await backend.aclose()

    async def test_models_are_asked_about_once(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """`/api/show` is asked again only when the digest changed."""
        await backend.models()
        await backend.models()
        assert [request.path for request in ollama.requests].count("/api/show") == 1
        ollama.models = [Model("gemma3n", digest="cd" * 32, capabilities=("completion",))]
        (model,) = await backend.models()
        assert (model.tools, model.digest) == (False, "sha256:" + "cd" * 32)

    @pytest.mark.parametrize(
        ("name", "long"),
        [("a", "a:latest"), ("a:b", "a:b"), ("host:5000/x/a", "host:5000/x/a:latest"), ("x/a:1", "x/a:1")],
    )
    def test_names(self, name: str, long: str) -> None:
        """A port is no tag; the short form is what people ask for."""
        assert full(name) == long
        assert short(full(name)) == name

    async def test_embeddings(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """One vector an input, in order; an unknown model is named."""
        result = await backend.embed("gemma3n", ["a", "bb"])
        assert [vector[0] for vector in result.vectors] == [0.01, 0.02]
        assert result.prompt_tokens == 4
        with pytest.raises(ModelNotFound):
            await backend.embed("nope", ["a"])

    async def test_what_is_in_memory(self) -> None:
        """`/api/ps` with the share on a GPU."""
        async with FakeOllama(models=[Model("gemma3n", size=100, vram=25)]) as ollama:
            backend = OllamaBackend(ollama.url)
            assert list(await backend.loaded()) == []
            await collect(backend, ask())
            (loaded,) = await backend.loaded()
            assert (loaded.name, loaded.gpu_ratio) == ("gemma3n", 0.25)
            await backend.aclose()


async def _until(condition: Any) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110  (the fake is outside: nothing tells us)
            await anyio.sleep(0.01)
