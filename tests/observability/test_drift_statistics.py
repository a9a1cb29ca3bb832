"""Drift statistics: right on known cases, powerful on injected shifts, quiet without any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.drift import statistics
from observability.drift.comparison import ENOUGH, Comparison, compare
from observability.drift.features import Rows

pytestmark = pytest.mark.in_image

TRIALS = 30


def rows(seed: int, count: int = 800, **shift: Any) -> Rows:
    """Runs as a service might log them, with injected shifts by name."""
    rng = np.random.default_rng(seed)
    scripts = shift.get("scripts", {"latin": 0.9, "cyrillic": 0.08, "cjk": 0.02})
    completion = rng.lognormal(4.5 + shift.get("completion", 0.0), 0.6, count)
    turns = 1.0 + rng.poisson(1.2 + shift.get("turns", 0.0), count)
    json_valid = (rng.random(count) < 0.95).astype(float)
    json_valid[rng.random(count) < 0.9] = np.nan
    numbers = {
        "prompt_tokens": rng.lognormal(5 + shift.get("prompt", 0.0), 0.8, count).round(),
        "completion_tokens": completion.round(),
        "turns": turns,
        "tool_calls": np.maximum(0, turns - 1),
        "tool_error": (rng.random(count) < shift.get("tool_errors", 0.02)).astype(float),
        "seconds": completion / rng.normal(30, 3, count),
        "ttft_seconds": rng.gamma(4, 0.1, count) * shift.get("ttft", 1.0),
        "tokens_per_second": rng.normal(30 * shift.get("speed", 1.0), 3, count),
        "refusal": (rng.random(count) < shift.get("refusal", 0.03)).astype(float),
        "json_valid": json_valid,
        "user_retry": (rng.random(count) < 0.05).astype(float),
    }
    words = {
        "outcome": rng.choice(["completed", "max_steps", "model_error"], count, p=[0.95, 0.03, 0.02]),
        "finish_reason": rng.choice(["stop", "length"], count, p=[0.9, 0.1]),
        "script": rng.choice(list(scripts), count, p=list(scripts.values())),
    }
    return Rows(1000.0 + np.arange(count), numbers, words)


def verdicts(trials: int = TRIALS, **shift: Any) -> list[Comparison]:
    """Many comparisons of fresh samples, the window shifted."""
    return [compare(rows(2 * n), rows(2 * n + 1, **shift), seed=n) for n in range(trials)]


def level(comparison: Comparison, name: str) -> int:
    """A feature's level."""
    return next(feature.level for feature in comparison.features if feature.name == name)


class TestPowerAndFalseAlarms:
    """The two error rates, measured on injected shifts."""

    def test_without_a_shift_there_is_hardly_an_alarm(self) -> None:
        """Of many comparisons of equal populations none is called drifted and at most 1 in 10 is watched."""
        found = verdicts()
        assert sum(comparison.verdict == "drifted" for comparison in found) == 0
        assert sum(comparison.verdict == "watch" for comparison in found) <= TRIALS // 10

    @pytest.mark.parametrize(
        ("shift", "features", "least"),
        [
            ({"completion": 0.6, "ttft": 2.0, "refusal": 0.12}, ("completion_tokens", "ttft_seconds", "refusal"), 2),
            ({"prompt": -0.9, "turns": 1.5, "tool_errors": 0.12}, ("prompt_tokens", "turns", "tool_error"), 2),
            (
                {"speed": 0.8, "scripts": {"latin": 0.6, "cyrillic": 0.35, "cjk": 0.05}},
                ("tokens_per_second", "script"),
                2,
            ),
            ({"completion": 0.3}, ("completion_tokens",), 1),
            ({"refusal": 0.09}, ("refusal",), 1),
        ],
        ids=str,
    )
    def test_shifts_that_matter_are_found(self, shift: dict[str, Any], features: tuple[str, ...], least: int) -> None:
        """In at least 9 of 10 trials each shifted feature reaches its level."""
        found = verdicts(10, **shift)
        for feature in features:
            assert sum(level(comparison, feature) >= least for comparison in found) >= 9, feature

    def test_tiny_shifts_of_large_samples_are_not_called_drifted(self) -> None:
        """With 20 000 rows a change of 3 % is significant, and still nobody is woken for it."""
        comparison = compare(rows(1, 20_000), rows(2, 20_000, completion=0.03))
        feature = next(f for f in comparison.features if f.name == "completion_tokens")
        assert feature.q < 0.01
        assert feature.level == 0

    def test_a_changed_relation_is_noticed_by_mmd_alone(self) -> None:
        """Two features that go together in the reference and not in the window: only the joint test sees it."""
        rng = np.random.default_rng(5)
        base = rng.normal(size=(600, 2))
        together = np.column_stack([base[:, 0], base[:, 0] + 0.2 * base[:, 1]])
        apart = np.column_stack([rng.normal(size=600), np.sqrt(1.04) * rng.normal(size=600)])
        for column in range(2):
            assert statistics.kolmogorov_smirnov(together[:, column], apart[:, column]).p > 0.01
        assert statistics.mmd(together, apart, rng).p < 0.02

    def test_mmd_keeps_its_false_alarm_rate(self) -> None:
        """At 5 %, at most 5 of 30 equal pairs are called different (99.5 % of such experiments stay there)."""
        rng = np.random.default_rng(6)
        alarms = 0
        for _ in range(TRIALS):
            x, y = rng.normal(size=(80, 3)), rng.normal(size=(80, 3))
            alarms += statistics.mmd(x, y, rng, permutations=100).p < 0.05
        assert alarms <= 5


class TestInsufficient:
    """Too few rows."""

    @pytest.mark.parametrize(("reference", "window"), [(ENOUGH - 1, 2000), (2000, ENOUGH - 1), (0, 0)])
    def test_under_500_rows_there_is_no_verdict(self, reference: int, window: int) -> None:
        """Either side too small: 'insufficient', even for a shift that is plain to see."""
        comparison = compare(rows(1, reference), rows(2, window, completion=3.0))
        assert comparison.verdict == "insufficient"
        assert not comparison.sufficient
        assert comparison.features == ()

    def test_500_are_enough(self) -> None:
        """At exactly 500 rows there is one."""
        assert compare(rows(1, 500), rows(2, 500, completion=3.0)).verdict == "drifted"

    def test_a_feature_that_is_mostly_absent_is_left_out(self) -> None:
        """About one answer in ten is JSON: under 100 of them there is nothing to compare."""
        names = {feature.name for feature in compare(rows(1, 600), rows(2, 600)).features}
        assert "json_valid" not in names
        assert "json_valid" in {feature.name for feature in compare(rows(1, 3000), rows(2, 3000)).features}


class TestKnownValues:
    """Against values worked out by hand or by definition."""

    def test_psi_by_hand(self) -> None:
        """(0.5 - 0.25) ln 2 + (0.5 - 0.75) ln (2/3) for large counts: 0.2747."""
        counts = np.array([25_000, 75_000]), np.array([50_000, 50_000])
        found = statistics.psi(*counts, np.random.default_rng(0))
        assert found.value == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5), rel=1e-3)
        assert found.low < found.value < found.high

    def test_bands_narrow_with_more_rows_and_cover_the_truth(self) -> None:
        """In about 95 of 100 samples the band holds the PSI of the populations (at least 85 of 100 here)."""
        rng = np.random.default_rng(1)
        p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
        truth = float(np.sum((q - p) * np.log(q / p)))
        widths = {}
        for size in (500, 5000):
            bands = [statistics.psi(rng.multinomial(size, p), rng.multinomial(size, q), rng) for _ in range(100)]
            assert sum(band.low <= truth <= band.high for band in bands) >= 85
            widths[size] = np.mean([band.high - band.low for band in bands])
        assert widths[5000] < widths[500] / 2

    def test_proportions_by_hand(self) -> None:
        """40 of 400 against 72 of 400: pooled 0.14, z = 0.08 / 0.02454 = 3.26."""
        found = statistics.proportions((40, 72), (400, 400))
        assert found.statistic == pytest.approx(3.2605, abs=1e-3)
        assert found.p == pytest.approx(0.00111, abs=2e-5)
        assert found.effect == pytest.approx(0.08)
        assert statistics.proportions((0, 0), (10, 10)).p == 1.0

    def test_benjamini_hochberg_by_hand(self) -> None:
        """p (i) * m / i, made monotone from the largest down."""
        assert statistics.adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
        assert statistics.adjusted([]) == []

    def test_rare_categories_do_not_break_the_chi_square(self) -> None:
        """Words seen once or twice are put together; one category alone says nothing."""
        rare = statistics.chi_square(np.array([500, 1, 0, 2]), np.array([500, 0, 1, 1]))
        assert rare.p > 0.5
        assert statistics.chi_square(np.array([500]), np.array([400])).p == 1.0

    @given(
        counts=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=12).filter(
            lambda pairs: sum(a for a, _ in pairs) > 0 and sum(b for _, b in pairs) > 0
        )
    )
    @settings(deadline=None, max_examples=60)
    def test_psi_is_never_negative_and_symmetric(self, counts: list[tuple[int, int]]) -> None:
        """PSI of any counts is finite, at least 0, and the same both ways."""
        a, b = (np.array(column) for column in zip(*counts, strict=True))
        rng = np.random.default_rng(0)
        there, back = statistics.psi(a, b, rng, 20).value, statistics.psi(b, a, rng, 20).value
        assert np.isfinite(there)
        assert there >= 0
        assert there == pytest.approx(back)

    @given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
    @settings(deadline=None, max_examples=60)
    def test_every_value_is_in_one_bin(self, values: list[float]) -> None:
        """Binning loses nothing, for ties and constants too."""
        array = np.array(values)
        assert statistics.binned(array, statistics.quantile_edges(array)).sum() == len(values)

    def test_the_same_rows_give_the_same_answer(self) -> None:
        """Randomness is seeded."""
        assert compare(rows(1), rows(2), seed=3) == compare(rows(1), rows(2), seed=3)
