"""From what `/v1/runs` takes to a run, and from stored runs and events to what it gives."""

from __future__ import annotations

from typing import Any, cast

from service.agents import Agents
from service.api.run_schemas import EventOut, LimitsIn, RunCreate, RunOut, UsageOut
from service.backends.base import Message, Sampling, ToolSpec
from service.errors import InvalidRequest
from service.runs.spec import Limits, RunSpec
from service.settings import Settings
from service.store.runs import Event, RunRow


def spec_of(body: RunCreate, agents: Agents, settings: Settings) -> RunSpec:
    """The run that the body asks for. Raises InvalidRequest, NotFound."""
    agent = agents.get(body.agent)
    offered = agents.tools(agent)
    tools = offered if body.tools is None else tuple(dict.fromkeys(body.tools))
    for name in tools:
        if name not in offered:
            raise InvalidRequest(
                f"No such tool: {name[:64]}. The agent has: {', '.join(offered) or 'none'}.",
                code="tool_not_found",
                param="tools",
            )
    client_tools = tuple(ToolSpec(each.name, each.description, each.parameters) for each in body.client_tools)
    known = {*tools, *(tool.name for tool in client_tools)}
    if len(known) != len(tools) + len(client_tools):
        raise InvalidRequest("Two tools have one name. Rename one.", code="duplicate_tool", param="client_tools")
    check_choice(body.tool_choice, known)
    sampling = agent.sampling()
    given = {key: getattr(body, key) for key in ("temperature", "top_p", "seed", "max_tokens")}
    sampling = Sampling(**{key: value if value is not None else getattr(sampling, key) for key, value in given.items()})
    messages = (
        (Message("user", body.input),)
        if isinstance(body.input, str)
        else tuple(Message(each.role, each.content) for each in body.input)
    )
    return RunSpec(
        model=body.model or agent.model,
        messages=messages,
        agent=body.agent,
        prompt=agent.prompt if body.instructions is None else body.instructions,
        tools=tools,
        client_tools=client_tools,
        tool_choice=body.tool_choice,
        sampling=sampling,
        format=body.output_schema,
        think=body.think,
        limits=limits_of(body.limits, settings),
        background=body.background,
        on_disconnect=body.on_disconnect or ("continue" if body.background else "cancel"),
        metadata=body.metadata,
    )


def check_choice(choice: str, known: set[str]) -> None:
    """Raises InvalidRequest if `tool_choice` cannot be done with these tools."""
    if choice in ("auto", "none"):
        return
    if not known or (choice != "required" and choice not in known):
        raise InvalidRequest(
            f"tool_choice names no tool that is on offer: {choice[:64]}. Use auto, none, required or one of: "
            f"{', '.join(sorted(known)) or '(no tools)'}.",
            code="invalid_tool_choice",
            param="tool_choice",
        )


def limits_of(asked: LimitsIn, settings: Settings) -> Limits:
    """The limits, none above the server's. Raises InvalidRequest."""
    values: dict[str, Any] = {}
    for name in ("steps", "tool_calls", "seconds", "tokens", "cost"):
        most = getattr(settings, f"max_{name}")
        value = getattr(asked, name)
        if value is not None and most is not None and value > most:
            raise InvalidRequest(
                f"The limit is above the server's: {name}={value:g}, at most {most:g}.",
                code="limit_too_high",
                param=f"limits.{name}",
            )
        values[name] = most if value is None else value
    return Limits(**values)


def run_out(row: RunRow) -> RunOut:
    """A run as the API shows it."""
    summary = row.summary or {}
    request = row.request
    background = bool(request.get("background", False))
    return RunOut(
        id=row.id,
        status=cast("Any", row.status),
        outcome=row.outcome,
        session_id=row.session_id,
        agent=row.agent,
        model=row.model,
        variant=str(row.variant.get("name", "")),
        background=background,
        on_disconnect=request.get("on_disconnect", "cancel"),
        output=summary.get("output", ""),
        finish_reason=summary.get("finish_reason"),
        client_tool_calls=summary.get("client_tool_calls", []),
        error=summary.get("error"),
        usage=UsageOut(**summary.get("usage", {})),
        steps=summary.get("steps", 0),
        tool_calls=summary.get("tool_calls", 0),
        cost=summary.get("cost", 0.0),
        seconds=summary.get("seconds"),
        ttft=summary.get("ttft"),
        protocol=summary.get("protocol"),
        cancel_requested=row.cancel is not None,
        created_at=row.created_at,
        ended_at=row.ended_at,
        last_event=row.next_seq - 1,
        metadata=request.get("metadata", {}),
        feedback=cast("Any", row.feedback),
    )


def event_out(event: Event) -> EventOut:
    """An event as the API shows it."""
    return EventOut(seq=event.seq, type=event.type, at=event.at, data=event.data)
