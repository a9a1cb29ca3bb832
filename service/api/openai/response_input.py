"""What `/v1/responses` is sent, as messages and as a run. Pure."""

from __future__ import annotations

from typing import Any, cast

from service.agents import PREFIX, Agents
from service.api.openai import convert
from service.api.openai.schemas import ResponseCreate
from service.backends.base import Message, Sampling, ToolCall
from service.errors import InvalidRequest
from service.runs.spec import Limits, RunSpec
from service.settings import Settings

_ECHOED = (
    *("background", "frequency_penalty", "instructions", "max_output_tokens", "max_tool_calls", "model"),
    *("parallel_tool_calls", "presence_penalty", "previous_response_id", "prompt_cache_key", "reasoning"),
    *("safety_identifier", "store", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p"),
    *("truncation", "user"),
)


def messages_of(value: str | list[Any]) -> tuple[Message, ...]:
    """The input's messages. Raises InvalidRequest with the place."""
    if isinstance(value, str):
        return (Message("user", value),)
    messages: list[Message] = []
    for index, item in enumerate(value):
        place = f"input[{index}]"
        if not isinstance(item, dict):
            raise InvalidRequest(f"Invalid value at '{place}': not an object.", code="invalid_value", param=place)
        fields = cast("dict[str, Any]", item)
        kind = fields.get("type", "message")
        if kind == "message":
            messages.append(convert.chat_message(fields, place))
        elif kind == "function_call":
            call = ToolCall(
                _text(fields, "call_id", place), _text(fields, "name", place), _text(fields, "arguments", place)
            )
            last = messages[-1] if messages else None
            if last is not None and last.role == "assistant" and not last.content:
                messages[-1] = Message("assistant", "", (*last.tool_calls, call))
            else:
                messages.append(Message("assistant", "", (call,)))
        elif kind == "function_call_output":
            text, _ = convert.content_of(fields.get("output"), f"{place}.output")
            messages.append(Message("tool", text, tool_call_id=_text(fields, "call_id", place)))
        elif kind == "mcp_call":
            call_id = _text(fields, "id", place)
            call = ToolCall(call_id, _text(fields, "name", place), _text(fields, "arguments", place))
            messages.append(Message("assistant", "", (call,)))
            messages.append(Message("tool", str(fields.get("output") or ""), tool_call_id=call_id))
        elif kind != "reasoning":  # a model does not read its old thoughts
            raise InvalidRequest(
                f"Invalid value at '{place}.type': {str(kind)[:40]!r} is not supported. Send messages, "
                "function_call and function_call_output.",
                code="invalid_value",
                param=f"{place}.type",
            )
    if not messages:
        raise InvalidRequest("The input is empty. Send a message.", code="invalid_value", param="input")
    return convert.name_results(messages)


def spec_of(body: ResponseCreate, agents: Agents, settings: Settings) -> RunSpec:
    """The run that the request means. Raises InvalidRequest, NotFound."""
    convert.refuse_unknown(body.model_extra)
    for name in ("conversation", "prompt"):
        if getattr(body, name) is not None:
            raise InvalidRequest(
                f"'{name}' is not supported. Use previous_response_id.", code="unsupported_parameter", param=name
            )
    client_tools = convert.tools_of(body.tools, flat=True)
    name = body.model.removeprefix(PREFIX) if body.model.startswith(PREFIX) else ""
    agent = agents.get(name) if name or body.model == PREFIX else None
    mine = {tool.name for tool in client_tools}
    tools = () if agent is None else tuple(tool for tool in agents.tools(agent) if tool not in mine)
    own = agent.sampling() if agent is not None else Sampling()
    background = bool(body.background)
    return RunSpec(
        model=body.model if agent is None else agent.model,
        messages=messages_of(body.input),
        agent=name,
        prompt=body.instructions if body.instructions is not None else (agent.prompt if agent else ""),
        tools=tools,
        client_tools=client_tools,
        tool_choice=convert.choice_of(body.tool_choice, {*mine, *tools}),
        sampling=Sampling(
            temperature=own.temperature if body.temperature is None else body.temperature,
            top_p=own.top_p if body.top_p is None else body.top_p,
            seed=own.seed,
            max_tokens=own.max_tokens if body.max_output_tokens is None else body.max_output_tokens,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
        ),
        format=convert.format_of((body.text or {}).get("format"), "text.format"),
        think=_think(body),
        limits=Limits(
            settings.max_steps,
            settings.max_tool_calls
            if body.max_tool_calls is None
            else min(body.max_tool_calls, settings.max_tool_calls),
            settings.max_seconds,
            settings.max_tokens,
            settings.max_cost,
        ),
        background=background,
        on_disconnect="continue" if background else "cancel",
        metadata=body.metadata or {},
        echo=body.model_dump(mode="json", include=set(_ECHOED), exclude_none=True),
    )


def _think(body: ResponseCreate) -> bool | None:
    effort = (body.reasoning or {}).get("effort")
    return None if effort is None else effort not in ("none", "minimal")


def _text(fields: dict[str, Any], name: str, place: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(
            f"Invalid value at '{place}.{name}': not a text. Send a string.",
            code="invalid_value",
            param=f"{place}.{name}",
        )
    return value
