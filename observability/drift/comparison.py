"""Reference against window: for each feature what the tests say, and a verdict that needs size and significance.

stable (0)   nothing beyond chance, or nothing that matters
watch  (1)   significant after correction (q < 0.05) and noticeable
drifted (2)  significant (q < 0.01) and large: see the limits below

Under 500 rows on either side there is no verdict but 'insufficient'.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from observability.drift import statistics
from observability.drift.features import FLAGS, NUMBERS, WORDS, Rows
from observability.drift.statistics import Psi, Test

ENOUGH = 500
PRESENT = 100
"""Values that a feature needs on both sides; one that is mostly absent (JSON answers) is left out below that."""
WATCH_PSI, DRIFT_PSI = 0.1, 0.25
WATCH_RATE, DRIFT_RATE = 0.02, 0.05
"""Differences of proportions; at least this many answers in a hundred more (or fewer)."""
WATCH_V, DRIFT_V = 0.1, 0.2
WATCH_Q, DRIFT_Q = 0.05, 0.01
LEVELS = ("stable", "watch", "drifted")


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature's result. `scores` are the distances by method; `bins` and the two shares are what a plot shows."""

    name: str
    kind: str
    scores: dict[str, float]
    p: float
    q: float
    level: int
    reference: str
    window: str
    bins: tuple[str, ...] = ()
    reference_shares: tuple[float, ...] = ()
    window_shares: tuple[float, ...] = ()
    band: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All features, the one that drifted most first; empty when there were too few rows."""

    reference_rows: int
    window_rows: int
    features: tuple[Feature, ...] = ()

    @property
    def sufficient(self) -> bool:
        """Whether both sides had enough rows for a verdict."""
        return min(self.reference_rows, self.window_rows) >= ENOUGH

    @property
    def verdict(self) -> str:
        """`insufficient`, `stable`, `watch` or `drifted`: the worst feature's."""
        return LEVELS[max((f.level for f in self.features), default=0)] if self.sufficient else "insufficient"


@dataclass(slots=True)
class _Draft:
    name: str
    kind: str
    test: Test
    psi: Psi | None
    summary: tuple[str, str]
    bins: list[str] = field(default_factory=list[str])
    counts: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None


def compare(reference: Rows, window: Rows, *, seed: int = 0) -> Comparison:
    """Compare two sets of rows; the same rows and seed give the same answer."""
    if min(len(reference), len(window)) < ENOUGH:
        return Comparison(len(reference), len(window))
    rng = np.random.default_rng(seed)
    drafts = [
        *(_number(name, reference, window, rng) for name in NUMBERS),
        *(_flag(name, reference, window) for name in FLAGS),
        *(_word(name, reference, window, rng) for name in WORDS),
        _joint(reference, window, rng),
    ]
    found = [draft for draft in drafts if draft is not None]
    corrected = statistics.adjusted([draft.test.p for draft in found])
    features = [_finished(draft, q) for draft, q in zip(found, corrected, strict=True)]
    features.sort(key=lambda feature: (-feature.level, feature.q, feature.name))
    return Comparison(len(reference), len(window), tuple(features))


def _number(name: str, reference: Rows, window: Rows, rng: np.random.Generator) -> _Draft | None:
    before, after = (_present(rows.numbers[name]) for rows in (reference, window))
    if min(len(before), len(after)) < PRESENT:
        return None
    edges = statistics.quantile_edges(before)
    counts = statistics.binned(before, edges), statistics.binned(after, edges)
    test = statistics.kolmogorov_smirnov(before, after)
    bins = [f"≤ {edge:.3g}" for edge in edges] + [f"> {edges[-1]:.3g}"]
    summary = tuple(f"median {np.median(values):.3g}" for values in (before, after))
    return _Draft(name, "number", test, statistics.psi(*counts, rng), (summary[0], summary[1]), bins, counts)


def _flag(name: str, reference: Rows, window: Rows) -> _Draft | None:
    before, after = (_present(rows.numbers[name]) for rows in (reference, window))
    if min(len(before), len(after)) < PRESENT:
        return None
    hits = int(before.sum()), int(after.sum())
    test = statistics.proportions(hits, (len(before), len(after)))
    counts = tuple(np.array([len(values) - hit, hit]) for values, hit in zip((before, after), hits, strict=True))
    summary = f"{hits[0] / len(before):.1%}", f"{hits[1] / len(after):.1%}"
    return _Draft(name, "flag", test, None, summary, ["no", "yes"], (counts[0], counts[1]))


def _word(name: str, reference: Rows, window: Rows, rng: np.random.Generator) -> _Draft | None:
    before, after = reference.words[name], window.words[name]
    names, places = np.unique(np.concatenate([before, after]), return_inverse=True)
    if len(names) < 2:
        return None
    counts = tuple(np.bincount(part, minlength=len(names)) for part in np.split(places, [len(before)]))
    test = statistics.chi_square(counts[0], counts[1])
    summary = tuple(f"mostly {names[int(count.argmax())] or '(none)'}" for count in counts)
    bins = [str(word) or "(none)" for word in names]
    psi = statistics.psi(counts[0], counts[1], rng)
    return _Draft(name, "word", test, psi, (summary[0], summary[1]), bins, (counts[0], counts[1]))


def _joint(reference: Rows, window: Rows, rng: np.random.Generator) -> _Draft | None:
    """All numbers that are always there, together: sees what no single feature shows."""
    names = [
        name
        for name in NUMBERS
        if not np.isnan(reference.numbers[name]).any() and not np.isnan(window.numbers[name]).any()
    ]
    if len(names) < 2:
        return None
    before, after = (
        np.log1p(np.maximum(np.column_stack([rows.numbers[name] for name in names]), 0)) for rows in (reference, window)
    )
    test = statistics.mmd(before, after, rng)
    return _Draft("all_numbers_together", "joint", test, None, (f"{len(names)} features", ""))


def _finished(draft: _Draft, q: float) -> Feature:
    scores: dict[str, float] = {_METHOD[draft.kind]: draft.test.effect}
    if draft.psi is not None:
        scores["psi"] = draft.psi.value
    shares = [tuple(float(v) for v in counts / counts.sum()) for counts in draft.counts or ()]
    return Feature(
        name=draft.name,
        kind=draft.kind,
        scores=scores,
        p=draft.test.p,
        q=q,
        level=_level(draft, q),
        reference=draft.summary[0],
        window=draft.summary[1],
        bins=tuple(draft.bins),
        reference_shares=shares[0] if shares else (),
        window_shares=shares[1] if shares else (),
        band=None if draft.psi is None else (draft.psi.low, draft.psi.high),
    )


_METHOD = {"number": "ks", "flag": "difference", "word": "cramers_v", "joint": "mmd"}


def _level(draft: _Draft, q: float) -> int:
    effect, psi = abs(draft.test.effect), draft.psi
    if draft.kind == "flag":
        noticeable, large = effect >= WATCH_RATE, effect >= DRIFT_RATE
    elif draft.kind == "joint":
        # A discrepancy has no scale that means the same everywhere: it can call attention, not more.
        noticeable, large = True, False
    else:
        assert psi is not None
        noticeable = psi.value >= WATCH_PSI and psi.low > 0
        # The whole band has to be beyond what is only watched.
        large = psi.value >= DRIFT_PSI and psi.low >= WATCH_PSI
        if draft.kind == "word":
            noticeable, large = noticeable or effect >= WATCH_V, large or effect >= DRIFT_V
    if large and q < DRIFT_Q:
        return 2
    return 1 if noticeable and q < WATCH_Q else 0


def _present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]
