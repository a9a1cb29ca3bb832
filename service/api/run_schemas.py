"""What `/v1/runs` takes and gives."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

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
