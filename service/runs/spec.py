"""What a run is asked to do: a frozen value that is stored with the run and read back when it resumes."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import TypeAdapter

from service.backends.base import Message, Sampling, ToolSpec

OnDisconnect = Literal["cancel", "continue"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a run stops; each has an outcome of its own. One step in flight may overshoot, nothing more."""

    steps: int = 10
    tool_calls: int = 32
    seconds: float = 600.0
    tokens: int | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run. `messages` is its new input; what the session holds comes before it."""

    model: str
    messages: tuple[Message, ...]
    agent: str = "default"
    """Name of the agent, "" where a plain model runs."""
    prompt: str = ""
    """System prompt, "" for none."""
    tools: tuple[str, ...] = ()
    """Server tools on offer."""
    client_tools: tuple[ToolSpec, ...] = ()
    """Tools of the caller: a call of one ends the run and is returned."""
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the tool that the first step must call."""
    sampling: Sampling = field(default_factory=Sampling)
    format: Any = None
    """None, "json", or a JSON schema of the answer."""
    think: bool | None = None
    limits: Limits = field(default_factory=Limits)
    background: bool = False
    on_disconnect: OnDisconnect = "cancel"
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    echo: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the caller's wire format wants to read again, as it was given."""

    @property
    def survives_its_client(self) -> bool:
        """Whether it goes on, here or elsewhere, when nobody listens."""
        return self.background or self.on_disconnect == "continue"


_SPEC: TypeAdapter[RunSpec] = TypeAdapter(RunSpec)
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


def to_json(spec: RunSpec) -> dict[str, Any]:
    """The spec as JSON data."""
    return cast("dict[str, Any]", _SPEC.dump_python(spec, mode="json", exclude_defaults=True))


def from_json(data: dict[str, Any]) -> RunSpec:
    """The spec of JSON data."""
    return _SPEC.validate_python(data)


def message_to_json(message: Message) -> dict[str, Any]:
    """A message as JSON data, without what has its default."""
    return cast("dict[str, Any]", _MESSAGE.dump_python(message, mode="json", exclude_defaults=True))


def message_from_json(data: dict[str, Any]) -> Message:
    """The message of JSON data."""
    return _MESSAGE.validate_python(data)


def new_id(prefix: str) -> str:
    """An id that sorts by time and cannot be guessed: `run_` + 9 digits of time + 20 of chance, in hex."""
    return f"{prefix}_{int(time.time() * 16):09x}{secrets.token_hex(10)}"


def new_session_id(variant: str) -> str:
    """A session id that names the variant it belongs to: `sess_<variant>_<28 hex digits>`."""
    return f"sess_{variant}_{secrets.token_hex(14)}"
