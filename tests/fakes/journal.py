"""A service whose tools leave a trace outside of it: what really happened, whatever its log says.

`uvicorn --factory tests.fakes.journal:create`, with the service's settings in the environment and the journal's path
in `JOURNAL`. Each line is `begin|end CALL_ID TOOL PID`, written before and after a tool's effect.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from service import settings as configuration
from service.app import create_app
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Script, Turn
from service.telemetry import logs
from service.tools.base import ToolContext
from tests.fakes.tools import Box, Recorded

STEPS = 4
"""Model calls before the answer; each makes one call of either tool."""

SCRIPT = Script.of(
    *(
        Turn(text=f"Step {number}, thinking aloud.", calls=(Call("write"), Call("look")), pace=0.02)
        for number in range(STEPS)
    ),
    Turn(text="All of it is done.", pace=0.02),
)


def note(what: str, tool: str, context: ToolContext) -> None:
    """Append one line, as one write: lines of several processes do not mix."""
    line = f"{what} {context.call_id} {tool} {os.getpid()}\n".encode()
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(journal, line)
    os.close(journal)


def tool(name: str, *, idempotent: bool) -> Recorded:
    """A tool that takes a moment and is journalled."""

    async def act(_arguments: Mapping[str, Any], context: ToolContext) -> str:
        note("begin", name, context)
        await asyncio.sleep(0.05)
        note("end", name, context)
        return f"{name} is done"

    return Recorded(name, act, idempotent=idempotent)


def entries(journal: Path) -> list[tuple[str, str, str, int]]:
    """The journal's lines: what, call, tool, process."""
    if not journal.exists():
        return []
    lines = (line.split() for line in journal.read_text().splitlines())
    return [(what, call, name, int(pid)) for what, call, name, pid in lines]


def create() -> FastAPI:
    """The application."""
    settings = configuration.load()
    logs.configure(settings.log_level, settings.log_format)
    box = Box(tool("write", idempotent=False), tool("look", idempotent=True))
    return create_app(settings, backend=ScriptedBackend(SCRIPT), toolbox=box)
