"""The canary's numbers: right against simulation, honest about how often they err."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci.stack.canary.gates import Histogram, Rate, alpha_at, latency_risk, rate_risk

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))).map(lambda p: Rate(*p))


class TestRates:
    @pytest.mark.parametrize(("stable", "canary", "margin"), [((3, 100), (9, 120), 0.02), ((0, 50), (0, 50), 0.01)])
    def test_agrees_with_drawing_from_the_posteriors(
        self, stable: tuple[int, int], canary: tuple[int, int], margin: float
    ) -> None:
        """The integral gives what a million draws from both posteriors give."""
        draw = np.random.default_rng(7)
        s = draw.beta(stable[0] + 0.5, stable[1] - stable[0] + 0.5, 1_000_000)
        c = draw.beta(canary[0] + 0.5, canary[1] - canary[0] + 0.5, 1_000_000)
        assert rate_risk(Rate(*stable), Rate(*canary), margin) == pytest.approx(np.mean(c - s > margin), abs=2e-3)

    @settings(max_examples=40, deadline=None)
    @given(COUNTS, COUNTS)
    def test_more_failures_are_never_less_risk(self, stable: Rate, canary: Rate) -> None:
        """One more bad event of the canary raises its risk; one more of stable's lowers it."""
        risk = rate_risk(stable, canary, 0.02)
        assert 0 <= risk <= 1
        if canary.bad < canary.total:
            assert rate_risk(stable, Rate(canary.bad + 1, canary.total), 0.02) >= risk
        if stable.bad < stable.total:
            assert rate_risk(Rate(stable.bad + 1, stable.total), canary, 0.02) <= risk + 1e-9


class TestLatency:
    def test_agrees_with_the_mann_whitney_statistic(self) -> None:
        """On samples without buckets of their own, the probability is U over its maximum."""
        from scipy.stats import mannwhitneyu

        draw = np.random.default_rng(3)
        bounds = np.arange(0, 60)
        stable, canary = draw.integers(0, 40, 300), draw.integers(5, 50, 200)
        auc = mannwhitneyu(canary, stable).statistic / (300 * 200)
        counted = [Histogram(tuple(int(n) for n in np.bincount(x, minlength=60))) for x in (stable, canary)]
        assert len(bounds) == len(counted[0].counts)
        # The risk is 1/2 exactly where the margin puts the bar on the estimate.
        assert latency_risk(*counted, margin=auc - 0.5) == pytest.approx(0.5, abs=1e-6)

    def test_equal_histograms_are_no_risk_and_a_shift_is(self) -> None:
        """The same shape passes a margin of 0.1; twice as slow does not."""
        stable = Histogram((10, 60, 100, 60, 20, 5, 1))
        assert latency_risk(stable, stable, 0.1) < 0.01
        assert latency_risk(stable, Histogram((1, 10, 60, 100, 60, 20, 5)), 0.1) > 0.99

    def test_different_buckets_are_refused(self) -> None:
        """Two versions with other bounds cannot be compared, and that is said."""
        with pytest.raises(ValueError, match="2 and 3 buckets"):
            latency_risk(Histogram((1, 2)), Histogram((1, 2, 3)), 0.1)

    @given(st.lists(st.integers(0, 50), min_size=2, max_size=8))
    def test_a_side_without_data_says_nothing(self, counts: list[int]) -> None:
        """Nothing known is a risk of one half, neither pass nor harm."""
        empty = Histogram((0,) * len(counts))
        assert latency_risk(Histogram(tuple(counts)), empty, 0.1) == 0.5


class TestSpending:
    @given(st.integers(1, 20), st.floats(0.001, 0.2), st.integers(1, 8))
    def test_all_looks_and_gates_together_spend_alpha(self, looks: int, alpha: float, gates: int) -> None:
        """However often one looks and at however much, the total is what was allowed."""
        spent = sum(alpha_at(look, looks, alpha, gates) for look in range(looks)) * gates
        assert spent == pytest.approx(alpha)

    def test_false_alarms_stay_below_alpha_and_a_bad_canary_is_caught(self) -> None:
        """At every look of a release: an equally good canary is almost never accused, a plainly worse one always."""
        draw = np.random.default_rng(11)
        looks, alpha, gates, runs = 12, 0.05, 6, 60

        def accused(rate: float) -> bool:
            stable, canary = draw.random(2400) < 0.02, draw.random(2400) < rate
            return any(
                rate_risk(
                    Rate(int(stable[: 200 * (k + 1)].sum()), 200 * (k + 1)),
                    Rate(int(canary[: 200 * (k + 1)].sum()), 200 * (k + 1)),
                    0.02,
                )
                > 1 - alpha_at(k, looks, alpha, gates)
                for k in range(looks)
            )

        assert sum(accused(0.02) for _ in range(runs)) <= 1
        assert sum(accused(0.15) for _ in range(runs)) == runs
