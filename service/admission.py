"""Who may work now: a bounded number of places, and permits for the calls that the backend can run at a time.

A *place* is taken on arrival and kept until the request or run ends; there are `parallelism + max_queue` of them,
and when they are gone the answer is 503 at once. A *permit* is held during one model call, handed out first come,
first served; a run that waits for a tool holds none. So the queue is bounded and an accepted run is never refused
half-way. `Allowance` counts what one API key may do; exceeding that is 429 and concerns nobody else.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.auth import Principal
from service.errors import LimitReached, Unavailable
from service.settings import Settings
from service.telemetry import Metrics, names
from service.telemetry.names import RejectReason


@dataclass(slots=True)
class Place:
    """One of the bounded places. Give it back once; repeating that changes nothing."""

    gate: Gate
    arrival: float
    taken: bool = True

    def leave(self) -> None:
        """Give it back."""
        if self.taken:
            self.taken = False
            self.gate.places += 1


@dataclass(slots=True)
class Permit:
    """The right to one model call."""

    gate: Gate
    since: float = field(default_factory=time.monotonic)
    held: bool = True

    def release(self) -> None:
        """Let the next call go."""
        if self.held:
            self.held = False
            self.gate.returned(time.monotonic() - self.since)


class Gate:
    """The places and permits of one process."""

    def __init__(self, parallelism: int, settings: Settings, metrics: Metrics) -> None:
        self.parallelism = parallelism
        self.total = parallelism + settings.max_queue
        self.places = self.total
        self.closed = False
        self._timeout = settings.queue_timeout
        self._metrics = metrics
        self._permits = asyncio.Semaphore(parallelism)
        self._waiting = 0
        self._active = 0
        self._mean = 1.0  # seconds a call takes, smoothed
        metrics.set(names.QUEUE_LIMIT, settings.max_queue)

    @property
    def active(self) -> int:
        """Model calls running now."""
        return self._active

    @property
    def waiting(self) -> int:
        """Model calls waiting for a permit."""
        return self._waiting

    def enter(self, arrival: float | None = None) -> Place:
        """Take a place. Raises Unavailable when there is none or the process is draining."""
        if self.closed:
            self._refuse(RejectReason.DRAINING)
            raise Unavailable("The service is shutting down. Try again.", code="draining", retry_after=2.0)
        if self.places <= 0:
            self._refuse(RejectReason.QUEUE_FULL)
            raise Unavailable(
                f"The service is busy: {self.total} requests are in work or waiting. Try again later.",
                retry_after=self.expected_wait(),
            )
        self.places -= 1
        return Place(self, time.monotonic() if arrival is None else arrival)

    async def permit(self, arrival: float | None = None, *, patient: bool = False) -> Permit:
        """Wait for a permit, since `arrival`. Raises Unavailable after `queue_timeout`, unless `patient`."""
        start = time.monotonic() if arrival is None else arrival
        self._waiting += 1
        self._metrics.set(names.QUEUE_DEPTH, self._waiting)
        try:
            if self._permits.locked():
                async with asyncio.timeout(None if patient else self._timeout):
                    await self._permits.acquire()
            else:
                await self._permits.acquire()
        except TimeoutError:
            self._refuse(RejectReason.QUEUE_TIMEOUT)
            raise Unavailable(
                f"The service is busy: no place at the model within {self._timeout:g} s. Try again later.",
                retry_after=self.expected_wait(),
            ) from None
        finally:
            self._waiting -= 1
            self._metrics.set(names.QUEUE_DEPTH, self._waiting)
        self._active += 1
        self._metrics.set(names.ADMITTED_ACTIVE, self._active)
        self._metrics.observe(names.ADMISSION_WAIT, time.monotonic() - start)
        return Permit(self)

    def returned(self, seconds: float) -> None:
        """A permit came back after `seconds`."""
        self._active -= 1
        self._metrics.set(names.ADMITTED_ACTIVE, self._active)
        self._mean += 0.2 * (seconds - self._mean)
        self._permits.release()

    def expected_wait(self) -> float:
        """Seconds until a place should be free, from 1 to 60."""
        return min(60.0, max(1.0, self._mean * (self._waiting + 1) / self.parallelism))

    def _refuse(self, reason: RejectReason) -> None:
        self._metrics.inc(names.ADMISSION_REJECTED, reason=reason)


@dataclass(slots=True)
class Hold:
    """What an admitted request or run holds until its end: a place, and its part of its key's allowance."""

    place: Place
    allowance: Allowance | None = None
    principal: Principal | None = None

    @property
    def arrival(self) -> float:
        """`time.monotonic()` at arrival."""
        return self.place.arrival

    def leave(self, tokens: int = 0) -> None:
        """Give everything back, and count the tokens that were used. Repeating it changes nothing."""
        if not self.place.taken:
            return
        self.place.leave()
        if self.allowance is not None and self.principal is not None:
            self.allowance.end(self.principal)
            self.allowance.spend(self.principal, tokens)


class Admission:
    """Gate and allowance together: what a request passes."""

    def __init__(self, gate: Gate, allowance: Allowance) -> None:
        self.gate = gate
        self.allowance = allowance

    def admit(self, principal: Principal, arrival: float) -> Hold:
        """Let a request in. Raises LimitReached (429) or Unavailable (503)."""
        self.allowance.begin(principal)
        try:
            return Hold(self.gate.enter(arrival), self.allowance, principal)
        except Unavailable:
            self.allowance.end(principal)
            raise


class Allowance:
    """Requests, tokens and concurrency of each API key, in this process (with n workers a key has n times as much).

    Tokens are known afterwards: a key may start while its last minute is under the limit, so one call overshoots.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._running: dict[str, int] = {}

    def begin(self, principal: Principal) -> None:
        """Count a request as running. Raises LimitReached."""
        key = principal.key_id
        most = principal.limits.get("concurrency", self._settings.key_concurrency)
        if most is not None and self._running.get(key, 0) >= most:
            self._refuse(RejectReason.CONCURRENCY, f"{most} requests at a time", 1.0)
        tokens = principal.limits.get("tpm", self._settings.key_tpm)
        if tokens is not None:
            item = RateLimitItemPerMinute(tokens)
            if not self._window.test(item, key, "tokens"):
                self._refuse(RejectReason.TOKENS, f"{tokens} tokens a minute", self._reset(item, key, "tokens"))
        requests = principal.limits.get("rpm", self._settings.key_rpm)
        if requests is not None:
            item = RateLimitItemPerMinute(requests)
            if not self._window.hit(item, key, "requests"):
                wait = self._reset(item, key, "requests")
                self._refuse(RejectReason.RATE, f"{requests} requests a minute", wait)
        self._running[key] = self._running.get(key, 0) + 1

    def end(self, principal: Principal) -> None:
        """The request is over."""
        left = self._running.get(principal.key_id, 0) - 1
        if left > 0:
            self._running[principal.key_id] = left
        else:
            self._running.pop(principal.key_id, None)

    def spend(self, principal: Principal, tokens: int) -> None:
        """Count tokens that a request used."""
        limit = principal.limits.get("tpm", self._settings.key_tpm)
        if limit is not None and tokens > 0:
            item = RateLimitItemPerMinute(limit)
            # A hit beyond what is left would be refused and not counted at all.
            left = self._window.get_window_stats(item, principal.key_id, "tokens").remaining
            if left > 0:
                self._window.hit(item, principal.key_id, "tokens", cost=min(tokens, left))

    def running(self, key_id: str) -> int:
        """Requests of a key in work now."""
        return self._running.get(key_id, 0)

    def _reset(self, item: RateLimitItemPerMinute, *identifiers: str) -> float:
        return max(1.0, self._window.get_window_stats(item, *identifiers).reset_time - time.time())

    def _refuse(self, reason: RejectReason, limit: str, wait: float) -> None:
        self._metrics.inc(names.ADMISSION_REJECTED, reason=reason)
        raise LimitReached(
            f"The API key's limit is reached: {limit}. Try again in {wait:.0f} s.",
            code=f"{reason}_limit_exceeded" if reason != RejectReason.RATE else "rate_limit_exceeded",
            retry_after=wait,
        )
