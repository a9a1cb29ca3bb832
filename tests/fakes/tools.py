"""Tools with effects that a test can see, and a toolbox of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.tools.base import Tool, ToolContext

OBJECT: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass
class Recorded:
    """A tool that remembers its calls; `act` is what it does."""

    name: str
    act: Callable[[Mapping[str, Any], ToolContext], Awaitable[str]]
    parameters: dict[str, Any] = field(default_factory=lambda: dict(OBJECT))
    description: str = "For tests."
    idempotent: bool = False
    timeout: float = 30.0
    calls: list[ToolContext] = field(default_factory=list)
    finished: int = 0

    async def __call__(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        self.calls.append(context)
        result = await self.act(arguments, context)
        self.finished += 1
        return result


class Box:
    """A toolbox of these tools."""

    def __init__(self, *tools: Tool) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._tools))

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


def sleeper(name: str = "sleep", seconds: float = 60.0, **fields: Any) -> Recorded:
    """A tool that takes its time."""

    async def act(_arguments: Mapping[str, Any], _context: ToolContext) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    return Recorded(name, act, **fields)


def counter(name: str = "count", **fields: Any) -> Recorded:
    """A tool that answers with the number of its calls."""

    async def act(_arguments: Mapping[str, Any], _context: ToolContext) -> str:
        return str(len(tool.calls))

    tool = Recorded(name, act, **fields)
    return tool
