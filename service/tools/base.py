"""What a tool is: a name, a schema, and an asynchronous call. `Toolbox` looks tools up; `discover` finds them.

A tool's failure is the model's business: raise `ToolError` with a sentence that helps the model to do better. Any
other exception is reported to the model as "the tool failed" with its type only, and logged.

The loop validates arguments against `parameters` before a call, writes its intent to the run's log first, and gives
the call a `ToolContext` whose `key` is the same whenever the same call is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from service.backends.base import JsonSchema


class ToolError(Exception):
    """The call did not work; the text is shown to the model."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a call may know about where it comes from."""

    run_id: str
    call_id: str
    key: str
    """`sha256(run id, call id, name, canonical arguments)` in hex: pass it on as an idempotency key."""
    session_id: str | None = None
    key_id: str | None = None
    """The API key's id (never the key)."""


@runtime_checkable
class Tool(Protocol):
    """A tool on the server."""

    @property
    def name(self) -> str:
        """`[a-zA-Z0-9_-]{1,64}`, unique in a toolbox."""
        ...

    @property
    def description(self) -> str:
        """For the model."""
        ...

    @property
    def parameters(self) -> JsonSchema:
        """JSON schema of type object for the arguments."""
        ...

    @property
    def idempotent(self) -> bool:
        """True: after a crash in mid-call the loop may call it again with the same key. Else the model is told."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds after which the loop cancels a call."""
        ...

    async def __call__(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Do it and return text for the model. Cancelled when the run is. Raises ToolError."""
        ...


@runtime_checkable
class Toolbox(Protocol):
    """The tools of a process. `service.tools.create(settings)` returns the configured one."""

    def names(self) -> tuple[str, ...]:
        """Every tool's name, sorted."""
        ...

    def get(self, name: str) -> Tool | None:
        """The tool of that name."""
        ...

    async def start(self) -> None:
        """Connect what needs a connection (MCP servers). A server that is down is logged, and its tools are absent."""
        ...

    async def aclose(self) -> None:
        """Disconnect."""
        ...
