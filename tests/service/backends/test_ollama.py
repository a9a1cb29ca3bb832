"""The Ollama backend against recorded replies of a real one, and what it sends."""

from __future__ import annotations

import json

import pytest

from service.backends.base import (
    BackendError,
    BackendFailed,
    BackendOverloaded,
    BackendProtocolError,
    BackendRejected,
    BackendUnavailable,
    ChatRequest,
    ContextTooLong,
    Message,
    ModelNotFound,
    Sampling,
    ToolCall,
    ToolSpec,
)
from service.backends.broken import EndedEarly
from service.backends.ollama import OllamaBackend
from tests.fakes.ollama import FakeOllama, recording, recordings
from tests.service.backends.asking import ask, collect, failing, text

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]

WEATHER = ToolSpec("get_weather", "Current weather", {"type": "object", "properties": {"city": {"type": "string"}}})


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
