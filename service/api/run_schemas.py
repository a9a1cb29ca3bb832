"""What `/v1/runs` takes and gives."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.agents import Agents
from service.backends.base import Message, Sampling, ToolSpec
from service.errors import InvalidRequest
from service.runs.spec import Limits, RunSpec
from service.settings import Settings
from service.store.runs import Event, RunRow

NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class Strict(BaseModel):
    """A body in which an unknown field is a mistake, and so is a value of another type (true is no number)."""

    model_config = ConfigDict(extra="forbid", strict=True)


class InputMessage(Strict):
    """A message of the conversation so far."""

    role: Literal["user", "assistant", "system"]
    content: str


class ClientTool(Strict):
    """A tool that the caller runs: a call of it ends the run and is returned."""

    name: str = Field(pattern=NAME)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})

    @field_validator("parameters")
    @classmethod
    def _schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        return check_schema(value)


class LimitsIn(Strict):
    """Limits of this run; each at most the server's own."""

    steps: int | None = Field(default=None, ge=1, le=10_000)
    tool_calls: int | None = Field(default=None, ge=0, le=100_000)
    seconds: float | None = Field(default=None, gt=0, le=1e7)
    tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    cost: float | None = Field(default=None, gt=0, le=1e12)


class RunCreate(Strict):
    """A run to be started."""

    input: str | list[InputMessage] = Field(description="The person's words, or messages ending with theirs.")
    agent: str = Field(default="default", max_length=64)
    model: str | None = Field(default=None, max_length=256, description="Instead of the agent's.")
    instructions: str | None = Field(default=None, description="Instead of the agent's system prompt.")
    tools: list[str] | None = Field(default=None, max_length=128, description="Some of the agent's server tools.")
    client_tools: list[ClientTool] = Field(default_factory=list, max_length=128)
    tool_choice: str = Field(default="auto", max_length=64, description="auto, none, required, or a tool's name.")
    session_id: str | None = Field(default=None, max_length=96, description="Go on with this session.")
    on_active_run: Literal["reject", "interrupt"] = Field(
        default="reject", description="If the session has an active run: answer 409, or cancel that one."
    )
    background: bool = False
    stream: bool = False
    on_disconnect: Literal["cancel", "continue"] | None = Field(
        default=None, description="When the client leaves; default: cancel, or continue in the background."
    )
    limits: LimitsIn = Field(default_factory=LimitsIn)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**31), le=2**31 - 1)
    max_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Of one step's output.")
    output_schema: dict[str, Any] | None = Field(default=None, description="JSON schema of the answer.")
    think: bool | None = None
    metadata: dict[str, str] = Field(default_factory=dict, max_length=16)

    @field_validator("input")
    @classmethod
    def _some_input(cls, value: str | list[InputMessage]) -> str | list[InputMessage]:
        if not value:
            raise ValueError("is empty")
        return value

    @field_validator("output_schema")
    @classmethod
    def _schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else check_schema(value)


class UsageOut(BaseModel):
    """Tokens of all model calls of a run."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ErrorOut(BaseModel):
    """What failed."""

    code: str
    message: str


class ToolCallOut(BaseModel):
    """A call of one of the caller's tools; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class FeedbackIn(Strict):
    """What a person thought of the answer."""

    thumbs: Literal["up", "down"]
    comment: str | None = Field(default=None, max_length=2000)


class RunOut(BaseModel):
    """A run."""

    id: str
    object: Literal["run"] = "run"
    status: Literal["running", "ended"]
    outcome: str | None = Field(description="How it ended; null while it runs.")
    session_id: str
    agent: str
    model: str
    variant: str
    background: bool
    on_disconnect: Literal["cancel", "continue"]
    output: str
    finish_reason: str | None
    client_tool_calls: list[ToolCallOut]
    error: ErrorOut | None
    usage: UsageOut
    steps: int
    tool_calls: int
    cost: float
    seconds: float | None
    ttft: float | None
    protocol: str | None = Field(description="How tools were offered: native, constrained or none.")
    cancel_requested: bool
    created_at: float
    ended_at: float | None
    last_event: int
    metadata: dict[str, str]
    feedback: FeedbackIn | None


class RunPage(BaseModel):
    """Runs, newest first."""

    object: Literal["list"] = "list"
    data: list[RunOut]
    has_more: bool


class EventOut(BaseModel):
    """One event of a run's log."""

    seq: int
    type: str
    at: float
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events in order."""

    object: Literal["list"] = "list"
    data: list[EventOut]
    has_more: bool


class SessionOut(BaseModel):
    """A session; its id names the variant that serves it."""

    id: str
    object: Literal["session"] = "session"
    variant: str


class Deleted(BaseModel):
    """It is gone."""

    id: str
    deleted: Literal[True] = True


def check_schema(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema that is one. Raises ValueError."""
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(value)
    except (jsonschema.SchemaError, RecursionError) as error:
        reason = getattr(error, "message", "nested too deeply")
        raise ValueError(f"is no JSON schema: {str(reason)[:200]}") from None
    return value


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
