"""Which backups stay."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.backup import retention
from observability.backup.repository import Repository
from tests.observability.backup.trees import NOW

pytestmark = pytest.mark.in_image


class TestRetention:
    """24 hourly and 7 daily."""

    def test_hourly_for_a_month(self) -> None:
        """After a month of hourly backups 24 hours and 7 days are left, the newest of each."""
        times = [NOW - timedelta(hours=hour) for hour in range(24 * 30)]
        kept = retention.kept(times)
        assert {NOW - timedelta(hours=hour) for hour in range(24)} <= kept
        assert {NOW.replace(hour=23) - timedelta(days=day) for day in range(1, 7)} <= kept
        assert len(kept) == 24 + 5  # yesterday's newest is one of the 24

    def test_a_long_pause_loses_nothing(self) -> None:
        """A machine that was off for a year keeps what it had."""
        times = [NOW - timedelta(days=365, hours=hour) for hour in range(10)]
        assert retention.kept(times) == set(times)

    @given(
        minutes=st.lists(st.integers(0, 60 * 24 * 40), max_size=80, unique=True),
        hourly=st.integers(0, 30),
        daily=st.integers(0, 10),
        newest=st.integers(0, 5),
    )
    @settings(deadline=None)
    def test_invariants(self, minutes: list[int], hourly: int, daily: int, newest: int) -> None:
        """The newest always stay, never more than asked for, and pruning twice drops nothing more."""
        times = {NOW - timedelta(minutes=minute) for minute in minutes}
        kept = retention.kept(times, hourly=hourly, daily=daily, newest=newest)
        assert kept <= times
        assert len(kept) <= max(1, newest) + hourly + daily
        assert set(sorted(times, reverse=True)[: max(1, newest)]) <= kept
        assert retention.kept(kept, hourly=hourly, daily=daily, newest=newest) == kept

    def test_one_made_by_hand_outlives_the_next_hourly_one(self) -> None:
        """A backup before an upgrade stays, though the loop makes another within the same hour."""
        by_hand, hourly = NOW + timedelta(minutes=5), NOW + timedelta(minutes=6)
        assert by_hand in retention.kept([by_hand, hourly])

    def test_prune_drops_snapshots_and_their_contents(self, repository: Repository, checkpoints: Path) -> None:
        """Contents that only dropped snapshots named are gone, all others stay whole."""
        for hour in range(4):
            (checkpoints / "a" / "state").write_text(f"state {hour}")
            repository.create("checkpoints", {"r": checkpoints}, now=NOW + timedelta(hours=hour))
        before = len(list((repository.folder / "objects").glob("??/*")))
        gone = repository.prune("checkpoints", hourly=2, daily=0, newest=1)
        assert len(gone) == 2
        assert len(list((repository.folder / "objects").glob("??/*"))) == before - 2
        assert [repository.verify(snapshot) for snapshot in repository.snapshots()] == [[], []]
