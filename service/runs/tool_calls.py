"""One call of a server tool: arguments checked, time limited, every failure turned into words for the model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from service.backends.base import ToolCall
from service.telemetry import Metrics, Traces, names
from service.tools import arguments
from service.tools.base import Tool, Toolbox, ToolContext, ToolError

log = structlog.get_logger("service.runs")

RESULT_CHARS = 64 * 1024
"""Longest tool result that the model is shown."""

INTERRUPTED = (
    "The call was interrupted by a restart. It may or may not have had its effect; it was not repeated. "
    "Check before you call it again."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose run it is, as far as tools may know."""

    run_id: str
    session_id: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Result:
    """What the model is shown, and the kind of failure ("" for none)."""

    content: str
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """Makes a run's calls; `offered` are the server tools that it may use."""

    caller: Caller
    toolbox: Toolbox
    offered: Sequence[str]
    metrics: Metrics
    traces: Traces

    async def make(self, call: ToolCall, *, again: bool) -> Result:
        """Make the call. `again`: it was begun before a crash, so it is repeated only if that does no harm."""
        started = time.monotonic()
        tool = self.toolbox.get(call.name) if call.name in self.offered else None
        label = call.name if tool is not None else names.OTHER_MODEL
        with self.traces.span(names.SPAN_TOOL, {names.ATTR_TOOL: label, names.ATTR_TOOL_CALL: call.id}) as span:
            if again and (tool is None or not tool.idempotent):
                error, content = "interrupted", INTERRUPTED
            else:
                error, content = await self._attempt(tool, call)
            if error:
                span.fail(error)
        seconds = time.monotonic() - started
        self.metrics.observe(names.TOOL_DURATION, seconds, gen_ai_tool_name=label, error_type=error)
        if len(content) > RESULT_CHARS:
            content = f"{content[:RESULT_CHARS]}\n[cut: {len(content) - RESULT_CHARS} characters more]"
        return Result(content, error, seconds)

    async def _attempt(self, tool: Tool | None, call: ToolCall) -> tuple[str, str]:
        """`(kind of error or "", text for the model)`."""
        if tool is None:
            self.metrics.inc(names.TOOL_REPAIRS, reason="unknown_tool")
            return "unknown_tool", f"No tool is called '{call.name[:64]}'. There are: {', '.join(self.offered)}."
        try:
            values = arguments.parse(call.arguments, tool.parameters)
        except ToolError as error:
            self.metrics.inc(names.TOOL_REPAIRS, reason="arguments")
            return "arguments", f"{error} Call the tool again."
        context = ToolContext(self.caller.run_id, call.id, self.key(call), self.caller.session_id, self.caller.key_id)
        try:
            async with asyncio.timeout(tool.timeout):
                return "", await tool(values, context)
        except ToolError as error:
            return "tool_error", str(error)
        except TimeoutError:
            return "timeout", f"The tool did not finish within {tool.timeout:g} s."
        except Exception as error:
            log.exception("tool.failed", tool=tool.name, run_id=self.caller.run_id)
            return "exception", f"The tool failed ({type(error).__name__})."

    def key(self, call: ToolCall) -> str:
        """SHA-256 over run, call and canonical arguments: equal for the same call, whenever and wherever it is made."""
        try:
            values: Any = json.loads(call.arguments or "{}")
        except ValueError:
            values = call.arguments
        canonical = json.dumps([self.caller.run_id, call.id, call.name, values], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
