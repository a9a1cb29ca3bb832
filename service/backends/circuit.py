"""A circuit breaker: after some failures in a row nobody asks for a while, then one call tries it again.

Pure: the caller brings the clock. States: closed -> (failures) -> open -> (time) -> half open -> closed or open.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from service.telemetry.names import CircuitState


class Circuit:
    """One backend's breaker.

    `failures` in a row open it for `rest` seconds; each failed trial doubles that up to `longest`.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        rest: float = 5.0,
        longest: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[CircuitState], None] = lambda _: None,
    ) -> None:
        self.state = CircuitState.CLOSED
        self._failures, self._first_rest, self._longest = failures, rest, longest
        self._clock, self._changed = clock, changed
        self._in_row = 0
        self._rest = rest
        self._until = 0.0
        self._trial = False

    def blocked(self) -> float | None:
        """Ask before a call: None to go ahead, else the seconds to wait. A go-ahead must be followed by one report."""
        if self.state is CircuitState.CLOSED:
            return None
        left = self._until - self._clock()
        if left > 0:
            return left
        if self._trial:
            return self._first_rest
        self._trial = True
        self._become(CircuitState.HALF_OPEN)
        return None

    def succeeded(self) -> None:
        """Report: it answered."""
        self._trial = False
        self._in_row = 0
        self._rest = self._first_rest
        self._become(CircuitState.CLOSED)

    def failed(self) -> None:
        """Report: it did not."""
        self._in_row += 1
        if self.state is CircuitState.HALF_OPEN:
            self._rest = min(self._rest * 2, self._longest)
        elif self.state is CircuitState.OPEN or self._in_row < self._failures:
            return
        self._trial = False
        self._until = self._clock() + self._rest
        self._become(CircuitState.OPEN)

    def undecided(self) -> None:
        """Report: the caller gave up before it was known. The next call may try."""
        self._trial = False

    def _become(self, state: CircuitState) -> None:
        if state is not self.state:
            self.state = state
            self._changed(state)
