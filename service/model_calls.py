"""One model call through admission: what the loop and the relay use instead of the bare backend.

A call closed before its first byte at a backend that cannot stop there (Ollama reads the whole prompt first) is
left open until that byte, then closed, and its permit is held so long: the next call would only queue up unseen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import cast

from service.admission import Gate, Permit
from service.backends.base import Backend, BackendError, ChatRequest, Delta, Embeddings, Usage
from service.backends.observed import abort_cause
from service.telemetry import Metrics, names
from service.telemetry.names import AbortCause


@dataclass(slots=True)
class CallRecord:
    """What a call took; filled while it runs."""

    arrival: float
    sent: float = 0.0
    first: float | None = None
    last: float = 0.0
    usage: Usage | None = None
    lingering: bool = False
    """Nobody waits for it any more, but it goes on until its first byte."""

    @property
    def ttft(self) -> float | None:
        """Seconds from arrival to the first delta."""
        return None if self.first is None else self.first - self.arrival

    @property
    def seconds(self) -> float:
        """Seconds from sending to the last delta."""
        return max(0.0, (self.last or time.monotonic()) - self.sent)


class ModelCalls:
    """The backend behind its gate."""

    def __init__(self, backend: Backend, gate: Gate, metrics: Metrics) -> None:
        self.backend = backend
        self.gate = gate
        self._metrics = metrics
        self._lingering: set[asyncio.Task[None]] = set()

    async def chat(
        self,
        request: ChatRequest,
        record: CallRecord,
        *,
        patient: bool = False,
        cause: Callable[[], AbortCause] = lambda: AbortCause.CLIENT_GONE,
    ) -> AsyncGenerator[Delta]:
        """The reply's deltas. Raises BackendError and, before the first delta, Unavailable (queue timeout).

        `record` is filled on the way; `cause` says why the call was closed, if it is before its end.
        """
        permit = await self.gate.permit(record.arrival, patient=patient)
        record.sent = time.monotonic()
        abort_cause.set(cast("AbortCause", _Cause(cause)))
        stream = cast("AsyncGenerator[Delta]", self.backend.chat(request))
        try:
            first = await self._first(stream, permit, record)
            record.first = record.last = time.monotonic()
            model = self._metrics.model(request.model)
            self._metrics.observe(names.FIRST_TOKEN, record.first - record.arrival, gen_ai_request_model=model)
            if first.finish is not None:
                record.usage = first.finish.usage
            yield first
            async for delta in stream:
                if delta.finish is not None:
                    record.usage = delta.finish.usage
                yield delta
        finally:
            record.last = time.monotonic()
            if not record.lingering:
                try:
                    await stream.aclose()
                finally:
                    permit.release()

    async def embed(self, model: str, inputs: list[str], arrival: float) -> Embeddings:
        """Embed through the gate."""
        permit = await self.gate.permit(arrival)
        try:
            return await self.backend.embed(model, inputs)
        finally:
            permit.release()

    async def aclose(self) -> None:
        """End what still lingers."""
        for task in self._lingering:
            task.cancel()
        await asyncio.gather(*self._lingering, return_exceptions=True)

    async def _first(self, stream: AsyncGenerator[Delta], permit: Permit, record: CallRecord) -> Delta:
        try:
            if self.backend.aborts_prompt:
                return await anext(stream)
            step = asyncio.ensure_future(anext(stream))
            try:
                return await asyncio.shield(step)
            except asyncio.CancelledError:
                if not step.done():
                    record.lingering = True
                    task = asyncio.create_task(_linger(step, stream, permit))
                    self._lingering.add(task)
                    task.add_done_callback(self._lingering.discard)
                raise
        except StopAsyncIteration:
            raise BackendError("The model's reply is empty: no delta at all.") from None


@dataclass(frozen=True, slots=True)
class _Cause:
    """Says why when it is asked: a cancelled call is counted before the canceller could set anything here."""

    ask: Callable[[], AbortCause]

    def __str__(self) -> str:
        return str(self.ask())


async def _linger(step: asyncio.Future[Delta], stream: AsyncGenerator[Delta], permit: Permit) -> None:
    try:
        await asyncio.wait([step])
        if not step.cancelled():
            step.exception()  # nobody is left to hear of it
    finally:
        step.cancel()
        try:
            await stream.aclose()
        finally:
            permit.release()
