"""All runs that this process works on: creating, leasing, cancelling, taking over after a crash, draining.

A run belongs to one process at a time, by a lease in the store that its owner renews. Cancel flags live in the store
too; the owner looks for them, or is woken when the request came to the same process. When a lease runs out, any
process takes the run over: if it survives its client it goes on from its last completed step, else it ends as
`interrupted`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog

from service.admission import Gate, Hold
from service.auth import Principal
from service.backends.base import Message
from service.drain import Drain
from service.errors import ApiError
from service.model_calls import ModelCalls
from service.runs import duties
from service.runs.acceptance import Acceptance
from service.runs.conclusion import conclude, tell
from service.runs.ending import Ending, Prices
from service.runs.history import history, replay
from service.runs.live import CAUSES, OUTCOMES, Created, Live
from service.runs.log import Entry, RunLog
from service.runs.loop import Caller, Execution
from service.runs.spec import RunSpec, from_json
from service.runs.state import RunState
from service.settings import Settings
from service.store import Store, StoreDown
from service.store.runs import Event, LeaseLost, RunRow
from service.telemetry import Metrics, Traces, names
from service.telemetry.logs import bound
from service.telemetry.names import AbortCause, Outcome
from service.telemetry.traces import Span
from service.tools.base import Toolbox

log = structlog.get_logger("service.runs")

ATTEMPTS = 5
"""Processes that may die on one run before it is given up."""


class Runner:
    """The runs of one process."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        calls: ModelCalls,
        gate: Gate,
        toolbox: Toolbox,
        metrics: Metrics,
        traces: Traces,
        drain: Drain,
        variant: dict[str, Any],
    ) -> None:
        self.owner = "proc_" + secrets.token_hex(8)
        self.live: dict[str, Live] = {}
        self.stopping = False
        self._settings = settings
        self._store = store
        self._calls = calls
        self._gate = gate
        self._toolbox = toolbox
        self._metrics = metrics
        self._traces = traces
        self._drain = drain
        self.variant = variant
        self._acceptance = Acceptance(store.runs, settings, variant, self.owner, self.stop)
        self._prices = Prices(settings.price_prompt, settings.price_completion, settings.price_second)
        self._background: list[asyncio.Task[None]] = []

    # Creating

    async def create(
        self,
        spec: RunSpec,
        principal: Principal,
        *,
        hold: Hold,
        session_id: str | None = None,
        replace_active: bool = False,
        idempotency_key: str | None = None,
        fingerprint: str = "",
        previous: Sequence[Message] | None = None,
    ) -> Created:
        """Store a run and start it; it keeps `hold` until its end, or gives it back when it raises.

        `previous` is the conversation before it where the caller brings that along. Raises Conflict (session busy,
        idempotency key used for another body), NotFound (session), StoreDown.
        """
        new = self._acceptance.new(spec, principal, session_id, previous)
        new = replace(new, idempotency_key=idempotency_key, fingerprint=fingerprint)
        run_id = new.id
        # Registered first: a reader of a stored run finds it here, and `cancel` reaches it.
        live = self.live[run_id] = Live(survives=spec.survives_its_client)
        try:
            earlier = await self._acceptance.stored(new, replace_active)
        except BaseException:
            self.live.pop(run_id, None)
            hold.leave()
            raise
        if earlier is not None:
            self.live.pop(run_id, None)
            hold.leave()
            return await self._acceptance.replayed(earlier, fingerprint)
        live.publish([Event(1, "run.created", new.created, new.created_at)])
        self._start(run_id, live, hold, row=None)
        return Created(run_id, new.session_id)

    def _start(self, run_id: str, live: Live, hold: Hold, row: RunRow | None) -> None:
        live.task = asyncio.create_task(self._work(run_id, live, hold, row), name=run_id)

    # Working

    async def _work(self, run_id: str, live: Live, hold: Hold, row: RunRow | None) -> None:
        state = RunState()
        try:
            with (
                self._metrics.active(names.RUNS_ACTIVE),
                self._traces.span(names.SPAN_RUN, {names.ATTR_RUN: run_id}) as span,
                bound(run_id=run_id, **({"trace_id": span.trace_id} if span.trace_id else {})),
            ):
                await self._work_on(run_id, live, hold.arrival, row, state, span)
        except LeaseLost:
            live.lost = True
            log.warning("run.lease_lost", run_id=run_id)
        except StoreDown as error:
            live.lost = True
            log.error("run.not_stored", run_id=run_id, reason=error.message)
        except asyncio.CancelledError:
            live.lost = True
        except Exception:
            live.lost = True
            log.exception("run.broken", run_id=run_id)
        finally:
            hold.leave(state.tokens)
            self.live.pop(run_id, None)
            live.wake()

    async def _work_on(
        self, run_id: str, live: Live, arrival: float, row: RunRow | None, state: RunState, span: Span
    ) -> None:
        row = row or await self._store.runs.get(run_id)
        if row is None:
            raise LeaseLost(run_id)
        spec = from_json({key: value for key, value in row.request.items() if key != "previous"})
        run_log = RunLog(lambda entries: self._store.runs.append(run_id, self.owner, entries), live.publish)
        ending: Ending | None = None
        before, retry = await history(self._store.runs, row, spec)
        if row.attempts > 1:
            await replay(self._store.runs, row.id, state)
            log.info("run.taken_over", run_id=row.id, attempt=row.attempts)
            ending = _not_to_go_on(row, spec)
        if ending is None:
            execution = Execution(
                Caller(run_id, row.session_id, row.key_id),
                spec,
                before,
                state,
                run_log,
                self._calls,
                self._toolbox,
                self._metrics,
                self._prices,
                self._traces,
                arrival,
                row.attempts,
                lambda: CAUSES.get(live.stop_reason or "", AbortCause.MAX_TIME),
            )
            ending = await self._ending(execution, live)
        if ending is None:  # released: somebody else goes on
            live.lost = True
            await run_log.settle()
            await self._store.runs.release(run_id, self.owner)
            return
        await run_log.settle()
        span.set(names.ATTR_AGENT, spec.agent or "none")
        span.set(names.ATTR_CONVERSATION, row.session_id)
        span.set(names.ATTR_OUTCOME, ending.outcome)
        if ending.error:
            span.fail(ending.error["code"])
        await self._finish(row, spec, state, ending, run_log.take_pending(), live, retry)

    async def _ending(self, execution: Execution, live: Live) -> Ending | None:
        if live.stop_reason is not None:
            return self._stopped(live)
        live.armed = True
        try:
            return await execution.run()
        except asyncio.CancelledError:
            # The task's cancellation is how `stop` speaks; from here on it works undisturbed.
            task = asyncio.current_task()
            while task is not None and task.cancelling():
                task.uncancel()
            return self._stopped(live)
        except (LeaseLost, StoreDown):
            raise
        except Exception:
            log.exception("run.failed", run_id=execution.caller.run_id)
            message = "Something went wrong in the service."
            return Ending(Outcome.MODEL_ERROR, "error", {"code": "internal_error", "message": message})
        finally:
            live.armed = False

    def _stopped(self, live: Live) -> Ending | None:
        reason = live.stop_reason or "shutdown"
        return None if reason == "released" else Ending(OUTCOMES[reason], "cancelled")

    async def _finish(
        self,
        row: RunRow,
        spec: RunSpec,
        state: RunState,
        ending: Ending,
        pending: Sequence[Entry],
        live: Live,
        retry: bool,
    ) -> None:
        conclusion = conclude(row, spec, state, ending, self._prices.cost(state), retry=retry)
        events = await self._store.runs.finish(
            row,
            self.owner,
            str(ending.outcome),
            conclusion.summary,
            [*pending, ("run.ended", conclusion.ended)],
            conclusion.features,
        )
        live.publish(events)
        tell(self._metrics, row, spec, state, ending, conclusion)

    # Stopping

    async def stop(self, run_id: str, reason: str) -> None:
        """Ask for a run's end, wherever it is worked on. Returns before it has ended. Raises StoreDown if it is not
        here and cannot be told elsewhere.
        """
        live = self.live.get(run_id)
        try:
            await self._store.runs.ask_to_stop(run_id, reason)
        except StoreDown:
            if live is None:
                raise
        if live is not None:
            live.stop(reason)

    # Leases

    def start(self) -> None:
        """Begin to renew leases, to look for cancel flags and for runs that nobody works on."""
        runs, settings = self._store.runs, self._settings
        self._background += [
            asyncio.create_task(each, name=each.__name__)
            for each in (
                duties.keep_leases(runs, self.owner, self.live, settings.lease_seconds),
                duties.watch_flags(runs, self.owner, self.live, settings.poll_seconds),
                duties.adopt(self.take_over_once, settings.lease_seconds / 3),
                duties.clean(runs, settings.retention_days),
                self._drained(),
            )
        ]

    async def aclose(self) -> None:
        """End what is left, and give up what can go on elsewhere."""
        await self._end_all()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _drained(self) -> None:
        await self._drain.wait()
        self._gate.closed = True
        # No run can begin from here on, so these are all.
        tasks = [live.task for live in self.live.values() if live.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.drain_seconds)
        await self._end_all()

    async def _end_all(self) -> None:
        self._gate.closed = True
        self.stopping = True
        self._drain.finish()
        tasks: list[asyncio.Task[None]] = []
        for live in list(self.live.values()):
            if live.task is None:
                continue
            live.stop("released" if live.survives else "shutdown")
            tasks.append(live.task)
        if tasks:
            await asyncio.wait(tasks, timeout=10.0)

    async def take_over_once(self) -> int:
        """Claim the runs that nobody works on, as far as there are places; returns how many."""
        taken = 0
        if self._gate.closed:
            return taken
        for run_id in await self._store.runs.orphans():
            if run_id in self.live:  # the clock was set, or the machine slept: it is still ours
                continue
            try:
                hold = Hold(self._gate.enter())
            except ApiError:
                break
            until = time.time() + self._settings.lease_seconds
            try:
                row = await self._store.runs.claim(run_id, self.owner, until)
            except StoreDown:
                hold.leave()
                raise
            if row is None:
                hold.leave()
                continue
            live = self.live[run_id] = Live(survives=True)
            self._start(run_id, live, hold, row)
            taken += 1
        return taken


def _not_to_go_on(row: RunRow, spec: RunSpec) -> Ending | None:
    """The ending of a run that was taken over after a crash, unless it is to go on."""
    if row.cancel is not None:
        return Ending(OUTCOMES.get(row.cancel, Outcome.CANCELLED), "cancelled")
    if not spec.survives_its_client or row.attempts > ATTEMPTS:
        message = "The process that worked on the run ended."
        return Ending(Outcome.INTERRUPTED, "error", {"code": "interrupted", "message": message})
    return None
