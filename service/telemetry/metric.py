"""What a metric is, and the bucket bounds of histograms (seconds; ratios from 0 to 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


def doubling(first: float, last: float) -> tuple[float, ...]:
    """Bucket bounds `first, 2 first, 4 first, ...` up to and including `last`."""
    bounds: list[float] = []
    bound = first
    while bound <= last * 1.0001:
        bounds.append(round(bound, 6))
        bound *= 2
    return tuple(bounds)


# A CPU may need minutes for one call, so the conventions' 81.92 s is doubled three times more.
OPERATION_SECONDS = doubling(0.01, 655.36)
CHUNK_SECONDS = doubling(0.01, 81.92)
TOOL_SECONDS = doubling(0.01, 81.92)
RUN_SECONDS = doubling(0.1, 409.6)
CALLS = doubling(1, 128)
# 2.5 s is a bound on purpose: it is the objective for the time to the first token, so no interpolation.
FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
PER_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
HTTP_SECONDS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
    300.0,
)
WAIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
RATIO = (0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99, 1.0)
UPSTREAM_SECONDS = doubling(0.001, 131.072)


@dataclass(frozen=True, slots=True)
class Metric:
    """One exported series family.

    `name` is the Prometheus name as queries spell it (counters with `_total`); `otel` the convention's name
    or empty for our own; `multiprocess` how gauges of several workers are put together.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    otel: str = ""
    multiprocess: Literal["livesum", "livemax", "livemostrecent", "livemin"] = "livesum"
