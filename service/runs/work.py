"""The work on one run in this process, from its row to its ending: history, the agent's loop, what is stored of it.

Who may work on a run, and when it is to stop, is the runner's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from service.model_calls import ModelCalls
from service.runs.conclusion import conclude, tell
from service.runs.ending import Ending, Prices
from service.runs.history import history, replay
from service.runs.live import CAUSES, OUTCOMES, Live
from service.runs.log import Entry, RunLog
from service.runs.loop import Caller, Execution
from service.runs.spec import RunSpec, from_json
from service.runs.state import RunState
from service.store import Store, StoreDown
from service.store.runs import LeaseLost, RunRow
from service.telemetry import Metrics, Traces, names
from service.telemetry.logs import bound
from service.telemetry.names import AbortCause, Outcome
from service.telemetry.traces import Span
from service.tools.base import Toolbox

log = structlog.get_logger("service.runs")

ATTEMPTS = 5
"""Processes that may die on one run before it is given up."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Works on runs that `owner` has leased."""

    owner: str
    store: Store
    calls: ModelCalls
    toolbox: Toolbox
    metrics: Metrics
    traces: Traces
    prices: Prices

    async def work(self, run_id: str, live: Live, arrival: float, row: RunRow | None, state: RunState) -> None:
        """Bring a run to its ending, or leave it to others (`live.lost`). `row` is read where it is not given;
        `state` counts what was done. Never raises.
        """
        try:
            with (
                self.metrics.active(names.RUNS_ACTIVE),
                self.traces.span(names.SPAN_RUN, {names.ATTR_RUN: run_id}) as span,
                bound(run_id=run_id, **({"trace_id": span.trace_id} if span.trace_id else {})),
            ):
                await self._work_on(run_id, live, arrival, row, state, span)
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

    async def _work_on(
        self, run_id: str, live: Live, arrival: float, row: RunRow | None, state: RunState, span: Span
    ) -> None:
        row = row or await self.store.runs.get(run_id)
        if row is None:
            raise LeaseLost(run_id)
        spec = from_json({key: value for key, value in row.request.items() if key != "previous"})
        run_log = RunLog(lambda entries: self.store.runs.append(run_id, self.owner, entries), live.publish)
        ending: Ending | None = None
        before, retry = await history(self.store.runs, row, spec)
        if row.attempts > 1:
            await replay(self.store.runs, row.id, state)
            log.info("run.taken_over", run_id=row.id, attempt=row.attempts)
            ending = _not_to_go_on(row, spec)
        if ending is None:
            execution = Execution(
                Caller(run_id, row.session_id, row.key_id),
                spec,
                before,
                state,
                run_log,
                self.calls,
                self.toolbox,
                self.metrics,
                self.prices,
                self.traces,
                arrival,
                row.attempts,
                lambda: CAUSES.get(live.stop_reason or "", AbortCause.MAX_TIME),
            )
            ending = await self._ending(execution, live)
        if ending is None:  # released: somebody else goes on
            live.lost = True
            await run_log.settle()
            await self.store.runs.release(run_id, self.owner)
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
        conclusion = conclude(row, spec, state, ending, self.prices.cost(state), retry=retry)
        events = await self.store.runs.finish(
            row,
            self.owner,
            str(ending.outcome),
            conclusion.summary,
            [*pending, ("run.ended", conclusion.ended)],
            conclusion.features,
        )
        live.publish(events)
        tell(self.metrics, row, spec, state, ending, conclusion)


def _not_to_go_on(row: RunRow, spec: RunSpec) -> Ending | None:
    """The ending of a run that was taken over after a crash, unless it is to go on."""
    if row.cancel is not None:
        return Ending(OUTCOMES.get(row.cancel, Outcome.CANCELLED), "cancelled")
    if not spec.survives_its_client or row.attempts > ATTEMPTS:
        message = "The process that worked on the run ended."
        return Ending(Outcome.INTERRUPTED, "error", {"code": "interrupted", "message": message})
    return None
