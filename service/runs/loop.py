"""One run: model, tools, model again, until it answers or meets a limit. `Execution.run` returns how it ended.

Every event goes to the log and into the state by the same call, so a run that resumes in another process continues
from the state that its log gives. A tool's intent is stored before the call: after a crash a call that had begun is
not made again (unless the tool is idempotent), and the model is told so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import jsonschema
import structlog

from service.backends.base import (
    BackendError,
    ChatRequest,
    Message,
    ModelInfo,
    ToolCall,
    ToolSpec,
)
from service.errors import ApiError
from service.model_calls import CallRecord, ModelCalls
from service.runs import protocol
from service.runs.log import RunLog
from service.runs.spec import RunSpec
from service.runs.state import RunState
from service.telemetry import Metrics, names
from service.telemetry.names import AbortCause, Outcome
from service.tools.base import Tool, Toolbox, ToolContext, ToolError

log = structlog.get_logger("service.runs")

REPAIRS = 3
"""Failed tool results in a row that the model may try to repair; the next one ends the run with `tool_error`."""

RESULT_CHARS = 64 * 1024
"""Longest tool result that the model is shown."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Cost of a run: tokens times a price for a million, plus seconds of model calls."""

    prompt: float = 0.0
    completion: float = 0.0
    second: float = 0.0

    def cost(self, state: RunState) -> float:
        """What the run has cost so far."""
        tokens = state.prompt_tokens * self.prompt + state.completion_tokens * self.completion
        return tokens / 1e6 + state.model_seconds * self.second


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended. `error` is `{code, message}` where something failed."""

    outcome: Outcome
    finish_reason: str = "stop"
    error: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose run it is, as far as tools may know."""

    run_id: str
    session_id: str
    key_id: str


@dataclass(slots=True)
class Execution:
    """A run at work in this process."""

    caller: Caller
    spec: RunSpec
    history: Sequence[Message]
    state: RunState
    log: RunLog
    calls: ModelCalls
    toolbox: Toolbox
    metrics: Metrics
    prices: Prices
    arrival: float
    attempt: int = 1
    cause: Callable[[], AbortCause] = lambda: AbortCause.OTHER

    async def run(self) -> Ending:
        """Work until an ending. Cancelling the task is allowed at any point; store errors and LeaseLost pass."""
        left = self.spec.limits.seconds - self.state.seconds
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self._work()
        except TimeoutError:
            return Ending(Outcome.MAX_TIME, "length")
        except BackendError as error:
            return Ending(Outcome.MODEL_ERROR, "error", {"code": error.code, "message": error.message})
        except ApiError as error:  # the queue's timeout
            if error.code == "store_unavailable":
                raise
            return Ending(Outcome.MODEL_ERROR, "error", {"code": error.code, "message": error.message})

    async def _work(self) -> Ending:
        info = await self._model_info()
        self._event("run.started", protocol=self._protocol(info), attempt=self.attempt)
        await self.log.flush()
        while True:
            if self.state.pending:
                ending = await self._tools()
                if ending is not None:
                    return ending
            elif self.state.steps and not self.state.open_step:
                return self._answered()  # a crash between the last step and the ending
            over = self._limit()
            if over is not None:
                return Ending(over, "length")
            await self._step(info)
            if not self.state.pending:
                return self._answered()

    def _answered(self) -> Ending:
        tokens = self.spec.limits.tokens
        if self.state.finish_reason == "length" and tokens is not None and self.state.tokens >= tokens:
            return Ending(Outcome.MAX_TOKENS, "length")
        return Ending(Outcome.COMPLETED, self.state.finish_reason)

    def _limit(self) -> Outcome | None:
        limits, state = self.spec.limits, self.state
        if state.steps >= limits.steps:
            return Outcome.MAX_STEPS
        if limits.tokens is not None and state.tokens >= limits.tokens:
            return Outcome.MAX_TOKENS
        if limits.cost is not None and self.prices.cost(state) >= limits.cost:
            return Outcome.MAX_COST
        return None

    async def _model_info(self) -> ModelInfo:
        for info in await self.calls.backend.models():
            if info.name == self.spec.model or info.name.removesuffix(":latest") == self.spec.model:
                return info
        return ModelInfo(self.spec.model)

    # The model

    async def _step(self, info: ModelInfo) -> None:
        step = self.state.steps + 1
        started = time.monotonic()
        self._event("step.started", step=step)
        self.log.cool()
        request = self._request(info)
        constrained = protocol.TurnReader() if self._constrained(info) else None
        record = CallRecord(self.arrival if step == 1 and self.attempt == 1 else time.monotonic())
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        finish = None
        patient = step > 1 or self.spec.survives_its_client
        stream = self.calls.chat(request, record, patient=patient, cause=self.cause)
        try:
            async for delta in stream:
                if delta.thinking:
                    thoughts.append(delta.thinking)
                    self.log.delta("thinking.delta", step, delta.thinking)
                text = constrained.feed(delta.text) if constrained and delta.text else delta.text
                if text:
                    texts.append(text)
                    self._text(step, text)
                calls += delta.tool_calls
                finish = delta.finish or finish
        finally:
            await stream.aclose()
        if constrained is not None:
            rest, made = constrained.end("")
            calls += made
            if rest:
                texts.append(rest)
                self._text(step, rest)
        usage = finish.usage if finish else record.usage
        reason = "tool_calls" if calls else (finish.reason if finish else "stop")
        self._event(
            "step.completed",
            step=step,
            text="".join(texts),
            thinking="".join(thoughts),
            tool_calls=[
                {"id": each.id, "name": each.name, "arguments": each.arguments} for each in self._own_ids(calls, step)
            ],
            finish_reason=reason,
            usage={
                "prompt_tokens": usage.prompt_tokens if usage else 0,
                "completion_tokens": usage.completion_tokens if usage else 0,
            },
            seconds=round(time.monotonic() - started, 6),
            model_seconds=round(record.seconds, 6),
            ttft=None if record.ttft is None else round(record.ttft, 6),
        )
        await self.log.flush()

    def _request(self, info: ModelInfo) -> ChatRequest:
        spec, limits = self.spec, self.spec.limits
        messages = [*self.history, *spec.messages, *self.state.messages]
        if spec.prompt:
            messages.insert(0, Message("system", spec.prompt))
        sampling = spec.sampling
        if limits.tokens is not None:
            left = max(1, limits.tokens - self.state.tokens)
            sampling = replace(sampling, max_tokens=min(left, sampling.max_tokens or left))
        request = ChatRequest(spec.model, messages, (), sampling, spec.format, spec.think)
        return protocol.prepare(request, self._offered(), self._choice(), native=info.tools)

    def _offered(self) -> list[ToolSpec]:
        if self.spec.tool_choice == "none":
            return []
        found = [self.toolbox.get(name) for name in self.spec.tools]
        own = [ToolSpec(tool.name, tool.description, tool.parameters) for tool in found if tool is not None]
        return [*own, *self.spec.client_tools]

    def _choice(self) -> str:
        # Only the first step is forced: a model that must call a tool again and again could never answer.
        forced = self.spec.tool_choice != "none" and self.state.steps > 0
        return "auto" if forced else self.spec.tool_choice

    def _constrained(self, info: ModelInfo) -> bool:
        return protocol.is_constrained(self._offered(), self._choice(), native=info.tools)

    def _protocol(self, info: ModelInfo) -> str:
        if not self._offered():
            return protocol.NONE
        return protocol.CONSTRAINED if self._constrained(info) else protocol.NATIVE

    def _own_ids(self, calls: Sequence[ToolCall], step: int) -> list[ToolCall]:
        """The calls with ids that no other call of this run has: some servers count from 0 in every reply."""
        used = set(self.state.used_ids)
        named: list[ToolCall] = []
        for index, call in enumerate(calls):
            unique = call.id if call.id and call.id not in used else f"call_{self.caller.run_id[-12:]}_{step}_{index}"
            used.add(unique)
            named.append(replace(call, id=unique))
        return named

    # The tools

    async def _tools(self) -> Ending | None:
        mine = {tool.name for tool in self.spec.client_tools}
        calls = [call for call in self.state.pending.values() if call.name not in mine]
        room = self.spec.limits.tool_calls - self.state.tool_calls + len(self.state.begun)
        cut = len(calls) > room
        calls = calls[: max(0, room)]
        context = {call.id: self._context(call) for call in calls}
        before = set(self.state.begun)
        for call in calls:
            if call.id not in before:
                self._event(
                    "tool.started",
                    step=self.state.steps,
                    id=call.id,
                    name=call.name,
                    arguments=call.arguments,
                    key=context[call.id].key,
                )
        await self.log.flush()
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._tool(call, context[call.id], again=call.id in before))
        except ExceptionGroup as failures:  # the store's: a tool's own failure is a result
            raise failures.exceptions[0] from None
        if self.state.failures > REPAIRS:
            last = self.state.messages[-1].content
            message = f"The model's tool calls failed {self.state.failures} times in a row. The last one: {last[:300]}"
            return Ending(Outcome.TOOL_ERROR, "error", {"code": "tool_error", "message": message})
        if cut:
            return Ending(Outcome.MAX_TOOL_CALLS, "length")
        if self.state.pending:  # only the caller's own are left
            return Ending(Outcome.COMPLETED, "tool_calls")
        return None

    async def _tool(self, call: ToolCall, context: ToolContext, *, again: bool) -> None:
        started = time.monotonic()
        tool = self.toolbox.get(call.name) if call.name in self.spec.tools else None
        error = ""
        if again and (tool is None or not tool.idempotent):
            error, content = (
                "interrupted",
                (
                    "The call was interrupted by a restart. It may or may not have had its effect; "
                    "it was not repeated. Check before you call it again."
                ),
            )
        else:
            error, content = await self._attempt(tool, call, context)
        seconds = time.monotonic() - started
        self.metrics.observe(
            names.TOOL_DURATION,
            seconds,
            gen_ai_tool_name=call.name if tool is not None else names.OTHER_MODEL,
            error_type=error,
        )
        if len(content) > RESULT_CHARS:
            content = f"{content[:RESULT_CHARS]}\n[cut: {len(content) - RESULT_CHARS} characters more]"
        self._event(
            "tool.completed",
            step=self.state.steps,
            id=call.id,
            name=call.name,
            ok=not error,
            content=content,
            seconds=round(seconds, 6),
        )
        await self.log.flush()

    async def _attempt(self, tool: Tool | None, call: ToolCall, context: ToolContext) -> tuple[str, str]:
        """`(kind of error or "", text for the model)`."""
        if tool is None:
            self.metrics.inc(names.TOOL_REPAIRS, reason="unknown_tool")
            return "unknown_tool", f"No tool is called '{call.name[:64]}'. There are: {', '.join(self.spec.tools)}."
        problem, arguments = read_arguments(tool, call.arguments)
        if problem:
            self.metrics.inc(names.TOOL_REPAIRS, reason="arguments")
            return "arguments", problem
        try:
            async with asyncio.timeout(tool.timeout):
                return "", await tool(arguments, context)
        except ToolError as error:
            return "tool_error", str(error)
        except TimeoutError:
            return "timeout", f"The tool did not finish within {tool.timeout:g} s."
        except Exception as error:
            log.exception("tool.failed", tool=tool.name, run_id=self.caller.run_id)
            return "exception", f"The tool failed ({type(error).__name__})."

    def _context(self, call: ToolCall) -> ToolContext:
        return ToolContext(
            self.caller.run_id,
            call.id,
            derived_key(self.caller.run_id, call),
            self.caller.session_id,
            self.caller.key_id,
        )

    # The log

    def _event(self, kind: str, **data: Any) -> None:
        self.state.apply(kind, data)
        self.log.add(kind, data)

    def _text(self, step: int, text: str) -> None:
        self.state.partial.append(text)
        self.log.delta("text.delta", step, text)


def derived_key(run_id: str, call: ToolCall) -> str:
    """SHA-256 over run, call and canonical arguments: equal for the same call, whenever and wherever it is made."""
    try:
        arguments: Any = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = call.arguments
    canonical = json.dumps([run_id, call.id, call.name, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_arguments(tool: Tool, text: str) -> tuple[str, dict[str, Any]]:
    """`(problem for the model or "", arguments)`: parsed and checked against the tool's schema."""
    try:
        value: Any = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        return f"The arguments are not JSON: {error}. Call the tool again with a JSON object.", {}
    if not isinstance(value, dict):
        return "The arguments are not a JSON object. Call the tool again with one.", {}
    validator = jsonschema.Draft202012Validator(dict(tool.parameters))
    problem = next(iter(validator.iter_errors(value)), None)
    if problem is not None:
        place = "/".join(str(part) for part in problem.absolute_path)
        where = f" at '{place}'" if place else ""
        return f"The arguments do not fit the schema{where}: {problem.message[:300]}. Call the tool again.", {}
    return "", cast("dict[str, Any]", value)
