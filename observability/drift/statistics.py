"""Distances between two samples and tests of whether they differ. Pure: numbers in, numbers out, seeded randomness.

Every test answers with a p-value; `adjusted` corrects many of them together (Benjamini and Hochberg, 1995), so that
twenty features do not give one false alarm each time. A small p says that something differs, not that it matters:
PSI, the difference of proportions and Cramer's V say how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True, slots=True)
class Psi:
    """Population stability index with its 95 % bootstrap band. 0.1 is commonly watched, 0.25 acted upon.

    `noise` is what 95 of 100 comparisons of equal populations of these sizes stay below: PSI of small samples is
    never zero.
    """

    value: float
    low: float
    high: float
    noise: float


@dataclass(frozen=True, slots=True)
class Test:
    """A test's statistic and p-value; `effect` is on a scale of its own (see the function)."""

    statistic: float
    p: float
    effect: float


def quantile_edges(reference: Floats, bins: int = BINS) -> Floats:
    """Inner edges that cut the reference into `bins` parts of equal size; fewer where values repeat."""
    inner = np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(inner)


def binned(values: Floats, edges: Floats) -> NDArray[np.int64]:
    """How many values lie at or below the first edge, between edges, and above the last."""
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1).astype(np.int64)


def psi(reference: NDArray[np.int64], window: NDArray[np.int64], rng: np.random.Generator, draws: int = 400) -> Psi:
    """PSI of two arrays of counts over the same bins: sum of (q - p) ln(q / p), with half a count added to each bin
    so that an empty one does not make it infinite."""
    n, m, bins = int(reference.sum()), int(window.sum()), len(reference)
    p, q = _shares(reference), _shares(window)
    resampled_p = _shares(rng.multinomial(n, reference / n, size=draws))
    resampled_q = _shares(rng.multinomial(m, window / m, size=draws))
    values = _psi(resampled_p, resampled_q)
    value = float(_psi(p, q))
    # Resampling adds its own noise, (bins - 1)(1/n + 1/m) on average: taken off, so that the band is about the value.
    low, high = np.quantile(values, [0.025, 0.975]) - (bins - 1) * (1 / n + 1 / m)
    noise = (1 / n + 1 / m) * float(stats.chi2.ppf(0.95, max(1, bins - 1)))
    return Psi(value, max(0.0, float(low)), float(high), noise)


def kolmogorov_smirnov(reference: Floats, window: Floats) -> Test:
    """Two-sample KS test; the effect is the largest distance of the two distribution functions (0 to 1)."""
    found: Any = stats.ks_2samp(reference, window, method="asymp")
    distance = float(found.statistic)
    return Test(distance, float(found.pvalue), distance)


def chi_square(reference: NDArray[np.int64], window: NDArray[np.int64]) -> Test:
    """Chi-square test of two arrays of counts over the same categories; the effect is Cramer's V (0 to 1).

    Categories too rare for the test (fewer than 5 expected) are put together.
    """
    table = np.array([reference, window], dtype=np.float64)
    total = table.sum()
    expected_least = table.sum(axis=0) * table.sum(axis=1).min() / total
    rare = expected_least < 5
    if rare.sum() > 1:
        table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return Test(0.0, 1.0, 0.0)
    found: Any = stats.chi2_contingency(table, correction=False)
    statistic, p = float(found.statistic), float(found.pvalue)
    return Test(statistic, p, float(np.sqrt(statistic / total)))


def proportions(successes: tuple[int, int], trials: tuple[int, int]) -> Test:
    """Two-sided z-test of two proportions (pooled); the effect is the second less the first."""
    rates = successes[0] / trials[0], successes[1] / trials[1]
    pooled = sum(successes) / sum(trials)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / trials[0] + 1 / trials[1]))
    if spread == 0:
        return Test(0.0, 1.0, rates[1] - rates[0])
    z = (rates[1] - rates[0]) / spread
    return Test(float(z), float(2 * stats.norm.sf(abs(z))), rates[1] - rates[0])


def adjusted(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being many (Benjamini-Hochberg): below x, at most a share x of the finds is false."""
    if not p_values:
        return []
    return [float(p) for p in stats.false_discovery_control(np.asarray(p_values, dtype=np.float64))]


def mmd(
    reference: Floats, window: Floats, rng: np.random.Generator, *, permutations: int = 200, most: int = 400
) -> Test:
    """Maximum mean discrepancy of rows of features, with a Gaussian kernel as wide as the median distance; the p-value
    is by permutation (Gretton et al., 2012). Sees changes in how features go together that no single one shows.

    At most `most` rows of each are drawn. The effect is the squared discrepancy (unbiased; may be just below zero).
    """
    x, y = (_drawn(rows, most, rng) for rows in (reference, window))
    both = np.concatenate([x, y])
    center, scale = np.median(x, axis=0), _spread(x)
    both = (both - center) / scale
    squares = np.sum(both**2, axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * both @ both.T, 0)
    width = float(np.median(distances[np.triu_indices(len(both), 1)])) or 1.0
    kernel = np.exp(-distances / width)
    np.fill_diagonal(kernel, 0)
    # One column a division of the rows in two: the observed one first, then divisions by chance.
    first = np.zeros((len(both), permutations + 1))
    first[: len(x), 0] = 1
    for column in range(1, permutations + 1):
        first[rng.permutation(len(both))[: len(x)], column] = 1
    found = _discrepancies(kernel, first)
    observed = float(found[0])
    p = (1 + int((found[1:] >= observed).sum())) / (permutations + 1)
    return Test(observed, p, observed)


def _discrepancies(kernel: Floats, first: Floats) -> Floats:
    """The squared discrepancy for each column of `first` (1 where a row belongs to the first part)."""
    n = first[:, 0].sum()
    m = len(first) - n
    to_first = kernel @ first
    of_first = np.einsum("ij,ij->j", first, to_first)
    across = to_first.sum(axis=0) - of_first
    of_second = kernel.sum() - of_first - 2 * across
    return of_first / (n * (n - 1)) + of_second / (m * (m - 1)) - 2 * across / (n * m)


def _drawn(rows: Floats, most: int, rng: np.random.Generator) -> Floats:
    return rows if len(rows) <= most else rows[rng.choice(len(rows), most, replace=False)]


def _spread(rows: Floats) -> Floats:
    low, high = np.quantile(rows, [0.25, 0.75], axis=0)
    spread = high - low
    spread[spread == 0] = 1.0
    return spread


def _shares(counts: NDArray[np.int64]) -> Floats:
    padded = np.asarray(counts, dtype=np.float64) + 0.5
    return padded / padded.sum(axis=-1, keepdims=True)


def _psi(p: Floats, q: Floats) -> Floats:
    return np.sum((q - p) * np.log(q / p), axis=-1)
