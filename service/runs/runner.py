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

from service.admission import Gate, Hold
from service.auth import Principal
from service.backends.base import Message
from service.drain import Drain
from service.errors import ApiError
from service.model_calls import ModelCalls
from service.runs import duties
from service.runs.acceptance import Acceptance
from service.runs.ending import Prices
from service.runs.live import Created, Live
from service.runs.spec import RunSpec
from service.runs.state import RunState
from service.runs.work import Worker
from service.settings import Settings
from service.store import Store, StoreDown
from service.store.runs import Event, RunRow
from service.telemetry import Metrics, Traces
from service.tools.base import Toolbox


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
        self._gate = gate
        self._drain = drain
        self.variant = variant
        self._acceptance = Acceptance(store.runs, settings, variant, self.owner, self.stop)
        prices = Prices(settings.price_prompt, settings.price_completion, settings.price_second)
        self._worker = Worker(self.owner, store, calls, toolbox, metrics, traces, prices)
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

    async def _work(self, run_id: str, live: Live, hold: Hold, row: RunRow | None) -> None:
        state = RunState()
        try:
            await self._worker.work(run_id, live, hold.arrival, row, state)
        finally:
            hold.leave(state.tokens)
            self.live.pop(run_id, None)
            live.wake()

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
