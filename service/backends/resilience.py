"""Retries, a circuit breaker and a fallback model around a backend; all of them only before the first byte.

After the first byte an error goes to the caller as it is, because a second try would repeat what was handed on.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

import anyio
import structlog

from service.backends.base import (
    Backend,
    BackendError,
    BackendFailed,
    BackendOverloaded,
    BackendStalled,
    BackendUnavailable,
    ChatRequest,
    Delta,
    Embeddings,
    ModelInfo,
)
from service.backends.circuit import Circuit
from service.telemetry import names
from service.telemetry.metrics import Metrics
from service.telemetry.names import Attempt

log = structlog.get_logger(__name__)

_AGAIN = (BackendUnavailable, BackendOverloaded, BackendFailed)
"""Worth another try. A runner that died is loaded anew by the next request."""

_SICK = (BackendUnavailable, BackendStalled, BackendFailed)
"""Counts against the backend; being busy is no sickness."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """Who answers instead: `model` at `backend`, for requests of the model `instead_of`."""

    backend: Backend
    model: str
    instead_of: str


class Resilient:
    """`backend` with `retries` further attempts, and perhaps a fallback."""

    def __init__(
        self,
        backend: Backend,
        *,
        retries: int = 2,
        pause: float = 0.25,
        circuit: Circuit | None = None,
        fallback: Fallback | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`pause` in seconds before the first retry; it doubles, with jitter, and obeys the upstream's Retry-After."""
        self._backend = backend
        self._retries, self._pause = retries, pause
        self._circuit = circuit or Circuit(changed=metrics.circuit if metrics else lambda _: None)
        self._fallback = fallback
        self._metrics = metrics
        self.name = backend.name
        self.parallelism = backend.parallelism
        self.aborts_prompt = backend.aborts_prompt

    async def models(self) -> Sequence[ModelInfo]:
        """As the backend."""
        return await self._backend.models()

    async def ready(self, model: str) -> None:
        """As the backend: a probe says what is, whatever the circuit thinks."""
        await self._backend.ready(model)

    async def embed(self, model: str, inputs: Sequence[str]) -> Embeddings:
        """As the backend, with retries."""
        for attempt in range(self._retries + 1):
            try:
                return await self._backend.embed(model, inputs)
            except _AGAIN as error:
                if attempt == self._retries:
                    raise
                await self._wait(attempt, error)
        raise AssertionError("unreachable")

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """As the backend; see the module's text."""
        problem: BackendError | None = None
        for attempt in range(self._retries + 1):
            blocked = self._circuit.blocked()
            if blocked is not None:
                if self._metrics:
                    self._metrics.inc(names.UPSTREAM_ATTEMPTS, outcome=Attempt.CIRCUIT_OPEN)
                problem = problem or BackendUnavailable(
                    f"The backend failed several times and is left alone for {blocked:.0f} s: {self.name}.",
                    retry_after=blocked,
                )
                break
            if attempt and problem:
                log.info("backend.retry", attempt=attempt, reason=problem.code, model=request.model)
            reported = False
            handed_on = False
            try:
                async with aclosing(cast("Any", self._backend.chat(request))) as stream:
                    async for delta in stream:
                        if not handed_on:
                            # The first byte is the proof that it works; how the answer ends is another matter.
                            self._circuit.succeeded()
                            reported = handed_on = True
                        yield delta
                return
            except BackendError as error:
                reported = self._report(error, reported)
                if handed_on or not error.before_first_byte:
                    error.before_first_byte = False
                    raise
                if not isinstance(error, _AGAIN):
                    raise
                problem = error
            finally:
                if not reported:
                    self._circuit.undecided()
            if attempt < self._retries:
                await self._wait(attempt, problem)
        assert problem is not None
        other = self._fallback
        if other is None or request.model != other.instead_of:
            raise problem
        log.warning("backend.fallback", model=request.model, to=other.model, reason=problem.code)
        if self._metrics:
            labels = {"from": request.model, "to": other.model, "reason": problem.code}
            self._metrics.inc(names.FALLBACKS, 1, **labels)
        async with aclosing(cast("Any", other.backend.chat(replace(request, model=other.model)))) as stream:
            async for delta in stream:
                yield delta

    async def aclose(self) -> None:
        """Close the backend and its fallback."""
        await self._backend.aclose()
        if self._fallback and self._fallback.backend is not self._backend:
            await self._fallback.backend.aclose()

    def _report(self, error: BackendError, reported: bool) -> bool:
        if isinstance(error, _SICK):
            self._circuit.failed()
        elif not reported:
            # It refused, or was busy: it is there.
            self._circuit.succeeded()
        return True

    async def _wait(self, attempt: int, error: BackendError) -> None:
        pause = self._pause * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311  (spreads callers out)
        await anyio.sleep(min(max(pause, error.retry_after or 0.0), 5.0))
