"""Which snapshots stay: the newest of each of the last 24 hours that have one, of each of the last 7 such days, and
the last 3 in any case: one that a person made before a risky step outlives the hourly one that follows it.

Hours and days without a backup do not count, so a machine that was off for a month keeps what it had.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

HOURLY = 24
DAILY = 7
NEWEST = 3


def kept(times: Iterable[datetime], *, hourly: int = HOURLY, daily: int = DAILY, newest: int = NEWEST) -> set[datetime]:
    """The times (with time zone) of the snapshots that stay; the newest always does."""
    newest_first = sorted(times, reverse=True)
    return (
        _newest_of_each(newest_first, "%Y-%m-%dT%H", hourly)
        | _newest_of_each(newest_first, "%Y-%m-%d", daily)
        | set(newest_first[: max(newest, 1)])
    )


def _newest_of_each(newest_first: list[datetime], period: str, count: int) -> set[datetime]:
    found: dict[str, datetime] = {}
    for time in newest_first:
        found.setdefault(time.astimezone(UTC).strftime(period), time)
    return set(list(found.values())[:count])
