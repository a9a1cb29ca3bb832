"""`/v1/chat/completions`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.agents import PREFIX
from service.api.access import Arrival, Chatter
from service.api.body import StrictRoute
from service.api.documented import ERRORS
from service.api.failures import from_backend
from service.api.openai import convert, source
from service.api.openai.schemas import ChatCompletionCreate
from service.api.parts import Parts, PartsOf
from service.api.session import belongs_to, belongs_to_its_variant
from service.api.sse import EventStream, until_gone
from service.backends.base import BackendError, ChatRequest, Delta, Finish, Message, Sampling, ToolCall, ToolSpec, Usage
from service.errors import ApiError, InvalidRequest, Unavailable
from service.runs.spec import Limits, RunSpec, new_id

router = APIRouter(prefix="/v1", tags=["openai"], route_class=StrictRoute, responses=ERRORS)

PATIENCE = 10.0
"""Seconds that a stream's headers wait for the first delta, for the sake of a proper error status."""


@router.post(
    "/chat/completions",
    response_model=dict[str, Any],
    responses={200: {"description": "A completion, or its chunks", "content": {"text/event-stream": {}}}},
)
async def create_completion(
    body: ChatCompletionCreate, request: Request, parts: PartsOf, principal: Chatter, arrival: Arrival
) -> Response:
    """Answer a conversation, by a model (`model`) or by an agent with its tools (`agent/<name>`)."""
    _check(body)
    messages = convert.name_results(
        [convert.chat_message(item, f"messages[{index}]") for index, item in enumerate(body.messages)]
    )
    tools = convert.tools_of(body.tools)
    choice = convert.choice_of(body.tool_choice, _known(parts, body.model, tools))
    reply = _Reply(body.model, body.stream_options is not None and body.stream_options.include_usage)
    if body.model.startswith(PREFIX):
        spec = agent_spec(parts, body, messages, tools, choice)
        hold = parts.admission.admit(principal, arrival)
        created = await parts.runner.create(spec, principal, hold=hold, previous=())
        belongs_to(request, created.session_id, created.run_id)
        deltas = _stopping(parts, created.run_id)
    else:
        chat = ChatRequest(
            body.model,
            messages,
            sampling=_sampling(body, Sampling()),
            format=convert.format_of(body.response_format, "response_format"),
            think=_think(body),
        )
        hold = parts.admission.admit(principal, arrival)
        belongs_to_its_variant(request, parts.settings.variant)
        deltas = source.relay(parts, source.Relay(chat, tools, choice), hold)
    if body.stream:
        started = await source.begin(deltas, parts, request, PATIENCE)
        if started is None:
            return Response(status_code=499)
        return EventStream(
            reply.chunks(started),
            parts.metrics,
            over=parts.drain.over,
            farewell=_error_chunk(Unavailable("The service is shutting down.", code="draining")),
        )
    whole = await gathered(parts, request, reply, deltas)
    return Response(status_code=499) if whole is None else JSONResponse(whole)


async def _stopping(parts: Parts, run_id: str) -> AsyncGenerator[Delta]:
    """A run's deltas; closing them early cancels the run, as the client has left."""
    ended = False
    try:
        async for delta in source.of_run(parts, run_id):
            ended = delta.finish is not None
            yield delta
    except ApiError:
        ended = True
        raise
    finally:
        if not ended and not parts.drain.over.is_set():
            await parts.runner.stop(run_id, "client_gone")


async def gathered(
    parts: Parts, request: Request, reply: _Reply, deltas: AsyncGenerator[Delta]
) -> dict[str, Any] | None:
    """The whole answer, or None if the client left first (then the call upstream is closed)."""
    working = asyncio.ensure_future(reply.whole(deltas))
    leaving = asyncio.ensure_future(until_gone(request.receive))
    over = asyncio.ensure_future(parts.drain.over.wait())
    try:
        await asyncio.wait([working, leaving, over], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if leaving.done():
            return None
        raise Unavailable("The service is shutting down.", code="draining", retry_after=2.0)
    finally:
        for task in (working, leaving, over):
            task.cancel()
        await asyncio.gather(working, leaving, over, return_exceptions=True)
        await deltas.aclose()


def agent_spec(
    parts: Parts,
    body: ChatCompletionCreate,
    messages: tuple[Message, ...],
    tools: tuple[ToolSpec, ...],
    choice: str,
) -> RunSpec:
    """The run of an agent that a chat request means."""
    name = body.model.removeprefix(PREFIX)
    agent = parts.agents.get(name)
    offered = tuple(tool for tool in parts.agents.tools(agent) if tool not in {mine.name for mine in tools})
    settings = parts.settings
    return RunSpec(
        model=agent.model,
        messages=messages,
        agent=name,
        prompt=agent.prompt,
        tools=offered,
        client_tools=tools,
        tool_choice=choice,
        sampling=_sampling(body, agent.sampling()),
        format=convert.format_of(body.response_format, "response_format"),
        think=_think(body),
        limits=Limits(
            settings.max_steps, settings.max_tool_calls, settings.max_seconds, settings.max_tokens, settings.max_cost
        ),
        metadata=body.metadata or {},
    )


def _known(parts: Parts, model: str, tools: tuple[ToolSpec, ...]) -> set[str]:
    known = {tool.name for tool in tools}
    if model.startswith(PREFIX):
        known.update(parts.agents.tools(parts.agents.get(model.removeprefix(PREFIX))))
    return known


def _check(body: ChatCompletionCreate) -> None:
    convert.refuse_unknown(body.model_extra)
    if body.functions or (body.function_call not in (None, "none", "auto")):
        raise InvalidRequest(
            "'functions' is not supported. Use 'tools'.", code="unsupported_parameter", param="functions"
        )
    if body.modalities is not None and "audio" in body.modalities:
        raise InvalidRequest("Audio is not supported. Ask for text.", code="unsupported_value", param="modalities")
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "'stream_options' is only for streams. Set 'stream' to true.", code="invalid_value", param="stream_options"
        )


def _think(body: ChatCompletionCreate) -> bool | None:
    if body.think is not None or body.reasoning_effort is None:
        return body.think
    return body.reasoning_effort not in ("none", "minimal")


def _sampling(body: ChatCompletionCreate, default: Sampling) -> Sampling:
    def chosen(given: Any, otherwise: Any) -> Any:
        return otherwise if given is None else given

    return Sampling(
        temperature=chosen(body.temperature, default.temperature),
        top_p=chosen(body.top_p, default.top_p),
        top_k=body.top_k,
        seed=chosen(body.seed, default.seed),
        max_tokens=chosen(body.max_completion_tokens, chosen(body.max_tokens, default.max_tokens)),
        stop=convert.stops_of(body.stop),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
    )


class _Reply:
    """Writes one completion. The fixed part of a text chunk is encoded once, since there are thousands of them."""

    def __init__(self, model: str, include_usage: bool) -> None:
        self.id = new_id("chatcmpl").replace("_", "-")
        self.created = source.now()
        self.model = model
        self.include_usage = include_usage
        head = (
            f'{{"id":"{self.id}","object":"chat.completion.chunk","created":{self.created},"model":{json.dumps(model)}'
        )
        self._head = f'data: {head},"choices":[{{"index":0,"delta":'
        self._usage_head = f'data: {head},"choices":[],"usage":'

    async def chunks(self, deltas: AsyncGenerator[Delta]) -> AsyncGenerator[bytes]:
        """The SSE chunks to `[DONE]`; a failure is the last chunk, without it."""
        encode = json.dumps
        text_head, text_tail = self._head + '{"content":', '},"finish_reason":null}]}\n\n'
        yield self._chunk({"role": "assistant", "content": ""})
        calls = 0
        try:
            async for delta in deltas:
                if delta.text:
                    yield (text_head + encode(delta.text) + text_tail).encode()
                if delta.thinking:
                    yield self._chunk({"reasoning_content": delta.thinking})
                if delta.tool_calls:
                    entries = [{"index": calls + i, **_call(call)} for i, call in enumerate(delta.tool_calls)]
                    calls += len(entries)
                    yield self._chunk({"tool_calls": entries})
                if delta.finish is not None:
                    yield self._finish(delta.finish)
            yield b"data: [DONE]\n\n"
        except (BackendError, ApiError) as error:
            yield _error_chunk(from_backend(error) if isinstance(error, BackendError) else error)
        finally:
            await deltas.aclose()

    def _finish(self, finish: Finish) -> bytes:
        usage = convert.compact(usage_of(finish.usage))
        end = f'{self._head}{{}},"finish_reason":"{finish.reason}"}}]'
        if self.include_usage:  # then it has a chunk of its own, as the real API does
            return f'{end},"usage":null}}\n\n{self._usage_head}{usage}}}\n\n'.encode()
        return f'{end},"usage":{usage}}}\n\n'.encode()

    def _chunk(self, delta: dict[str, Any]) -> bytes:
        return f'{self._head}{convert.compact(delta)},"finish_reason":null}}]}}\n\n'.encode()

    async def whole(self, deltas: AsyncGenerator[Delta]) -> dict[str, Any]:
        """The completion object."""
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        finish = Finish("stop")
        async for delta in deltas:
            if delta.text:
                texts.append(delta.text)
            if delta.thinking:
                thoughts.append(delta.thinking)
            calls += delta.tool_calls
            finish = delta.finish or finish
        text = "".join(texts)
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish.reason}],
            "usage": usage_of(finish.usage),
        }


def usage_of(usage: Usage) -> dict[str, int]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _error_chunk(error: ApiError) -> bytes:
    return f"data: {convert.compact(error.body())}\n\n".encode()
