"""How likely it is that the canary is worse than the served variant by more than a margin.

Rates (errors, failed tools, exhausted limits): both rates have a Beta posterior with Jeffreys' prior, Beta(1/2, 1/2),
and the risk is P(canary - stable > margin). Latency: histograms are compared by the probability that a canary request
takes longer than a stable one (the Mann-Whitney statistic over its maximum, ties counted half), whose standard error is
DeLong's (1988); the risk is the normal probability that it exceeds 1/2 + margin. Both are one number between 0 and 1,
so one rule decides over both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

NODES = 128
"""Gauss-Legendre nodes of the integral over the stable rate's quantiles; with more, the fifth digit changes."""


@dataclass(frozen=True)
class Rate:
    """A count of bad events among all of their kind."""

    bad: int
    total: int


@dataclass(frozen=True)
class Histogram:
    """Observations by bucket, in the order of the bounds (not cumulative)."""

    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """All observations."""
        return sum(self.counts)


@cache
def _legendre() -> tuple[Any, Any]:
    import numpy as np

    return np.polynomial.legendre.leggauss(NODES)


def rate_risk(stable: Rate, canary: Rate, margin: float) -> float:
    """P(canary's rate - stable's rate > margin) in [0, 1]. With no data on a side its posterior is the prior."""
    import numpy as np
    from scipy.stats import beta

    nodes, weights = _legendre()
    rates = beta.ppf((nodes + 1) / 2, stable.bad + 0.5, stable.total - stable.bad + 0.5)
    worse = beta.sf(rates + margin, canary.bad + 0.5, canary.total - canary.bad + 0.5)
    return float(np.clip(weights @ worse / 2, 0, 1))


def latency_risk(stable: Histogram, canary: Histogram, margin: float) -> float:
    """P(P(canary slower than stable) > 1/2 + margin) in [0, 1].

    Raises ValueError when the two have different buckets. With fewer than two observations on a side nothing is
    known, and the risk is 1/2.
    """
    import numpy as np
    from scipy.stats import norm

    if len(stable.counts) != len(canary.counts):
        raise ValueError(f"{len(stable.counts)} and {len(canary.counts)} buckets cannot be compared")
    if stable.total < 2 or canary.total < 2:
        return 0.5
    s, c = np.array(stable.counts, float), np.array(canary.counts, float)
    # For an observation in each bucket: the share of the other side that is below it, ties counted half.
    stable_below = (np.cumsum(s) - s / 2) / s.sum()
    canary_above = 1 - (np.cumsum(c) - c / 2) / c.sum()
    auc = float((c @ stable_below) / c.sum())
    spread_c = float((c @ (stable_below - auc) ** 2) / (c.sum() - 1))
    spread_s = float((s @ (canary_above - auc) ** 2) / (s.sum() - 1))
    error = (spread_c / c.sum() + spread_s / s.sum()) ** 0.5
    excess = auc - (0.5 + margin)
    if error == 0:
        return 1.0 if excess > 0 else 0.0
    return float(norm.cdf(excess / error))


def alpha_at(look: int, looks: int, alpha: float, gates: int) -> float:
    """The share of `alpha` that look `look` (0-based) of `looks` may spend on each of `gates` gates.

    Kim and DeMets' power family with exponent 2 spends little early and all of it by the last look, so that looking
    several times makes no more false alarms than looking once; the gates share it by Bonferroni's bound.
    """
    if not 0 <= look < looks:
        raise ValueError(f"look {look} is not one of {looks}")
    spent = ((look + 1) / looks) ** 2 - (look / looks) ** 2
    return alpha * spent / gates
