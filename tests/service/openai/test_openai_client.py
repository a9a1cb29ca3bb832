"""The `openai` client as its users use it: chat, tools, structured output, errors, models, embeddings.

This file and `test_openai_responses.py` run on the installed client, and on others through `test_openai_versions.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Script, Turn
from tests.service.openai.clients import SCRIPT, WEATHER, Shared, client_of, user

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]


class TestChat:
    async def test_completion(self, shared: Shared) -> None:
        """A plain model answers with text, a finish reason and usage."""
        client = shared[0]
        answer = await client.chat.completions.create(model="scripted", messages=user("Hi"))
        assert answer.choices[0].message.content == "Hello there, friend."
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0

    async def test_stream_with_usage(self, shared: Shared) -> None:
        """A stream adds up to the same text; with include_usage the last chunk has no choice and the usage."""
        client = shared[0]
        stream = await client.chat.completions.create(
            model="scripted", messages=user("Hi"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Hello there, friend."
        assert chunks[0].choices[0].delta.role == "assistant"
        assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 3)
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert len({chunk.id for chunk in chunks}) == 1

    async def test_stream_without_include_usage_has_usage_in_the_last_chunk(self, shared: Shared) -> None:
        """Usage is always present."""
        client = shared[0]
        stream = await client.chat.completions.create(model="scripted", messages=user("Hi"), stream=True)
        last = [chunk async for chunk in stream][-1]
        assert last.choices[0].finish_reason == "stop"
        assert last.usage.total_tokens > 0

    @pytest.mark.parametrize("native", [True, False])
    async def test_client_tools_are_returned(self, tmp_path: Path, native: bool) -> None:
        """A tool of the client comes back as a call, from a model with tools and, constrained, from one without."""
        call = json.dumps({"tool": "get_weather", "arguments": {"city": "Rome"}})
        script = SCRIPT if native else Script.of(Turn(text=call), native_tools=False)
        async with client_of(tmp_path, ScriptedBackend(script)) as (client, _):
            answer = await client.chat.completions.create(model="scripted", messages=user("weather?"), tools=[WEATHER])
            found = answer.choices[0].message.tool_calls[0]
            assert answer.choices[0].finish_reason == "tool_calls"
            assert (found.function.name, json.loads(found.function.arguments)) == ("get_weather", {"city": "Rome"})

    async def test_second_turn_after_a_tool(self, shared: Shared) -> None:
        """The result goes back as a tool message, and the model answers with it."""
        client = shared[0]
        messages = user("weather?")
        first = await client.chat.completions.create(model="scripted", messages=messages, tools=[WEATHER])
        message = first.choices[0].message
        messages += [
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"},
        ]
        second = await client.chat.completions.create(model="scripted", messages=messages, tools=[WEATHER])
        assert second.choices[0].message.content == "It is sunny in Rome."

    async def test_streamed_tool_call(self, shared: Shared) -> None:
        """In a stream a call comes with index, id, name and arguments, and the reason is tool_calls."""
        client = shared[0]
        stream = await client.chat.completions.create(
            model="scripted", messages=user("weather?"), tools=[WEATHER], stream=True
        )
        chunks = [chunk async for chunk in stream]
        calls = [c.choices[0].delta.tool_calls for c in chunks if c.choices and c.choices[0].delta.tool_calls]
        assert (calls[0][0].index, calls[0][0].function.name) == (0, "get_weather")
        assert json.loads(calls[0][0].function.arguments) == {"city": "Rome"}
        assert chunks[-1].choices[0].finish_reason == "tool_calls"

    @pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
    async def test_tool_choice_constrains_the_output(self, tmp_path: Path, choice: Any) -> None:
        """tool_choice, which Ollama's wire lacks, is done by a schema that admits nothing but a call."""
        backend = ScriptedBackend(SCRIPT)
        async with client_of(tmp_path, backend) as (client, _):
            answer = await client.chat.completions.create(
                model="scripted", messages=user("Hi"), tools=[WEATHER], tool_choice=choice
            )
            assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"
            schema: Any = backend.requests[-1].format
            assert schema["properties"]["tool"]["const"] == "get_weather"
            assert not backend.requests[-1].tools

    async def test_agent_runs_its_server_tools(self, shared: Shared) -> None:
        """`agent/default` calls the calculator on the server; the client sees the answer only."""
        client = shared[0]
        answer = await client.chat.completions.create(model="agent/default", messages=user("the sum?"))
        assert answer.choices[0].message.content == "It is 42."
        stream = await client.chat.completions.create(model="agent/default", messages=user("the sum?"), stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "It is 42."

    async def test_agent_returns_the_clients_tool_calls(self, shared: Shared) -> None:
        """An agent returns calls of tools that only the client has."""
        client = shared[0]
        answer = await client.chat.completions.create(model="agent/default", messages=user("weather?"), tools=[WEATHER])
        assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"

    async def test_parse_into_a_model(self, shared: Shared) -> None:
        """`parse()` sends a schema and gets an object of it."""

        class Place(BaseModel):
            city: str
            country: str

        client = shared[0]
        answer = await client.chat.completions.parse(model="scripted", messages=user("Where?"), response_format=Place)
        assert isinstance(answer.choices[0].message.parsed, Place)

    async def test_thinking_is_kept_apart(self, shared: Shared) -> None:
        """Thoughts come as reasoning_content, never inside the answer."""
        client = shared[0]
        answer = await client.chat.completions.create(model="scripted", messages=user("think"))
        assert answer.choices[0].message.content == "Seen."
        assert answer.choices[0].message.reasoning_content == "Let me see."

    async def test_max_tokens(self, shared: Shared) -> None:
        """Both spellings cut the answer, with finish reason `length`."""
        client = shared[0]
        for name in ("max_tokens", "max_completion_tokens"):
            answer = await client.chat.completions.create(model="scripted", messages=user("Hi"), **{name: 2})
            assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (
                "Hello there,",
                "length",
            )


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "error", "code"),
        [
            ("down", openai.InternalServerError, "backend_unavailable"),
            ("busy", openai.InternalServerError, "backend_overloaded"),
            ("long", openai.BadRequestError, "context_length_exceeded"),
            ("crash", openai.InternalServerError, "backend_failed"),
        ],
    )
    @pytest.mark.parametrize("model", ["scripted", "agent/default"])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_backend_errors(
        self, shared: Shared, words: str, error: type[openai.APIStatusError], code: str, model: str, stream: bool
    ) -> None:
        """An error before the first byte has a status, streaming or not, relay or agent; 503 says when to return."""
        client = shared[0]
        with pytest.raises(error) as caught:
            await client.chat.completions.create(model=model, messages=user(words), stream=stream)
        assert caught.value.code == code
        if caught.value.status_code == 503:
            assert int(caught.value.response.headers["retry-after"]) >= 1

    async def test_failure_in_mid_stream_is_an_error_event(self, shared: Shared) -> None:
        """After the first byte the client raises APIError from inside the stream; it does not end silently."""
        client = shared[0]
        for model in ("scripted", "agent/default"):
            stream = await client.chat.completions.create(model=model, messages=user("break"), stream=True)
            texts: list[str] = []
            with pytest.raises(openai.APIError):  # noqa: PT012
                async for chunk in stream:
                    texts.append(chunk.choices[0].delta.content or "")
            assert "".join(texts) == "one two"

    async def test_request_errors(self, shared: Shared) -> None:
        """What is wrong with a request is a BadRequestError that names the field; unknown models are NotFound."""
        client = shared[0]
        create = client.chat.completions.create
        with pytest.raises(openai.NotFoundError) as missing:
            await create(model="nope", messages=user("Hi"))
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            await create(model="agent/nope", messages=user("Hi"))
        for fields, param in (
            ({"temperature": 9}, "temperature"),
            ({"n": 2}, "n"),
            ({"extra_body": {"tempratur": 1}}, "tempratur"),
            ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
            ({"response_format": {"type": "xml"}}, "response_format.type"),
        ):
            with pytest.raises(openai.BadRequestError) as wrong:
                await create(model="scripted", messages=user("Hi"), **fields)
            assert wrong.value.param == param, fields

    async def test_keys(self, tmp_path: Path) -> None:
        """A wrong key is an AuthenticationError; with the right one it works."""
        async with client_of(tmp_path, api_key="right") as (client, _):
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
            good = client.with_options(api_key="right")
            assert "scripted" in [model.id async for model in good.models.list()]

    async def test_rate_limit(self, tmp_path: Path) -> None:
        """A key's own limit is a RateLimitError with Retry-After."""
        async with client_of(tmp_path, key_rpm=1) as (client, _):
            await client.chat.completions.create(model="scripted", messages=user("Hi"))
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(model="scripted", messages=user("Hi"))
            assert int(caught.value.response.headers["retry-after"]) >= 1


class TestOthers:
    async def test_models(self, shared: Shared) -> None:
        """The backend's models and the agents are listed and can be asked for."""
        client = shared[0]
        assert [model.id async for model in client.models.list()] == ["scripted", "agent/default"]
        assert (await client.models.retrieve("agent/default")).owned_by == "agent-loop"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nope")

    async def test_embeddings(self, shared: Shared) -> None:
        """Vectors come in the order of the inputs, as floats and in the client's own base64 form alike."""
        client = shared[0]
        packed = await client.embeddings.create(model="scripted", input=["a", "b", "a"])
        plain = await client.embeddings.create(model="scripted", input=["a", "b", "a"], encoding_format="float")
        assert packed.data[0].embedding == packed.data[2].embedding != packed.data[1].embedding
        assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
        assert packed.usage.total_tokens > 0
