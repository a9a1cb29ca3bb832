"""One run: model, tools, model again, until it answers or meets a limit. `Execution.run` returns how it ended.

Every event goes to the log and into the state by the same call, so a run that resumes in another process continues
from the state that its log gives. A tool's intent is stored before the call: after a crash a call that had begun is
not made again (unless the tool is idempotent), and the model is told so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from service.runs.ending import Ending, Prices
from service.runs.log import RunLog
from service.runs.spec import RunSpec
from service.runs.state import RunState
from service.runs.tool_calls import Caller, ToolCalls
from service.telemetry import Metrics, Traces
from service.telemetry.names import AbortCause, Outcome
from service.tools.base import Toolbox

REPAIRS = 3
"""Failed tool results in a row that the model may try to repair; the next one ends the run with `tool_error`."""


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
    traces: Traces
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
            elif self.state.answered:
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
        maker = ToolCalls(self.caller, self.toolbox, self.spec.tools, self.metrics, self.traces)
        before = set(self.state.begun)
        for call in calls:
            if call.id not in before:
                self._event(
                    "tool.started",
                    step=self.state.steps,
                    id=call.id,
                    name=call.name,
                    arguments=call.arguments,
                    key=maker.key(call),
                )
        await self.log.flush()
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._tool(maker, call, again=call.id in before))
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

    async def _tool(self, maker: ToolCalls, call: ToolCall, *, again: bool) -> None:
        result = await maker.make(call, again=again)
        self._event(
            "tool.completed",
            step=self.state.steps,
            id=call.id,
            name=call.name,
            ok=not result.error,
            content=result.content,
            seconds=round(result.seconds, 6),
        )
        await self.log.flush()

    # The log

    def _event(self, kind: str, **data: Any) -> None:
        self.state.apply(kind, data)
        self.log.add(kind, data)

    def _text(self, step: int, text: str) -> None:
        self.state.partial.append(text)
        self.log.delta("text.delta", step, text)
