"""Asks a backend all the cases and judges what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

import anyio

from service.backends.base import Backend, BackendError, ChatRequest, Message, Sampling, ToolCall
from service.evals.cases import Case
from service.evals.score import Answer, Verdict, judge
from service.runs import protocol


async def evaluate(
    backend: Backend,
    model: str,
    cases: Sequence[Case],
    *,
    repeat: int = 1,
    concurrency: int = 1,
    seconds: float = 300.0,
    sampling: Sampling | None = None,
    done: Callable[[Verdict], None] = lambda _: None,
) -> list[Verdict]:
    """Verdicts in the order of the cases, each asked `repeat` times, `concurrency` at a time.

    A backend that fails is a verdict with an error, not an exception; `seconds` is the limit of one answer.
    """
    native = await _native_tools(backend, model)
    attempts = [case for case in cases for _ in range(repeat)]
    verdicts: list[Verdict | None] = [None] * len(attempts)
    limiter = anyio.CapacityLimiter(concurrency)

    async def one(index: int, case: Case) -> None:
        async with limiter:
            verdict = judge(case, await ask(backend, model, case, native, seconds, sampling or Sampling(0.0)))
        verdicts[index] = verdict
        done(verdict)

    async with anyio.create_task_group() as group:
        for index, case in enumerate(attempts):
            group.start_soon(one, index, case)
    return [verdict for verdict in verdicts if verdict is not None]


async def ask(backend: Backend, model: str, case: Case, native: bool, seconds: float, sampling: Sampling) -> Answer:
    """One answer. A model without native tools gets them by constrained output, as the service does it."""
    messages = ((Message("system", case.system),) if case.system else ()) + (Message("user", case.prompt),)
    request = ChatRequest(model, messages, sampling=sampling, format=case.schema)
    constrained = protocol.is_constrained(case.tools, "auto", native=native)
    request = protocol.prepare(request, case.tools, "auto", native=native)
    reader = protocol.TurnReader() if constrained else None
    texts: list[str] = []
    calls: list[ToolCall] = []
    prompt_tokens = completion_tokens = 0
    start = time.monotonic()
    first: float | None = None
    error: str | None = None
    try:
        with anyio.fail_after(seconds):
            async with aclosing(cast("Any", backend.chat(request))) as stream:
                async for delta in stream:
                    first = first if first is not None else time.monotonic() - start
                    texts.append(reader.feed(delta.text) if reader else delta.text)
                    calls += delta.tool_calls
                    if delta.finish is not None:
                        prompt_tokens = delta.finish.usage.prompt_tokens
                        completion_tokens = delta.finish.usage.completion_tokens
    except BackendError as problem:
        error = f"{problem.code}: {problem.message}"
    except TimeoutError:
        error = f"no answer within {seconds:g} s"
    if reader and not error:
        try:
            rest, made = reader.end(f"call_{case.id}")
        except ValueError as problem:
            error = f"broken tool protocol: {problem}"
        else:
            texts.append(rest)
            calls += made
    return Answer(
        "".join(texts), tuple(calls), prompt_tokens, completion_tokens, time.monotonic() - start, first, error
    )


async def _native_tools(backend: Backend, model: str) -> bool:
    return next((info.tools for info in await backend.models() if info.name == model), True)
