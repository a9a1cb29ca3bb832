"""PromQL, and whole queries with their legend, that several dashboards write alike."""

from __future__ import annotations

from observability.grafana.panels import Query

JOB = 'job=~"$job"'


def quantile(share: float, metric: str, by: str, selector: str = JOB) -> str:
    """PromQL: a quantile of a histogram over the panel's resolution."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))"


def rate(metric: str, by: str, selector: str = JOB) -> str:
    """PromQL: events a second, by labels."""
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def mean(metric: str, by: str, selector: str = JOB) -> str:
    """PromQL: the mean of a histogram's observations, by labels."""
    inside = f"{{{selector}}}[$__rate_interval]"
    return f"sum by ({by}) (rate({metric}_sum{inside})) / sum by ({by}) (rate({metric}_count{inside}))"


def share(metric: str, part: str, whole: str, by: str, window: str = "5m") -> str:
    """PromQL: the rate of the series that match `part` over the rate of those that match `whole`."""
    top, bottom = (f"sum by ({by}) (rate({metric}{{{selector}}}[{window}]))" for selector in (part, whole))
    return f"{top} / {bottom}"


def increase(metric: str, by: str, selector: str = "") -> str:
    """PromQL: events within the panel's resolution, by labels."""
    return f"sum by ({by}) (increase({metric}{{{selector}}}[$__rate_interval]))"


def spread(metric: str, by: str, *, exemplars: bool = False) -> tuple[Query, Query]:
    """Median and 95th percentile of a histogram, a line of each a label; runs as dots on the upper one, if asked."""
    half, most = (f"p{percent} {{{{{by}}}}}" for percent in (50, 95))
    return Query(quantile(0.5, metric, by), half), Query(quantile(0.95, metric, by), most, exemplars)


def p95(metric: str, by: str, name: str = "") -> Query:
    """The 95th percentile of a histogram, a line a label, with a name before it where a panel shows several."""
    return Query(quantile(0.95, metric, by), f"{name} {{{{{by}}}}}".strip())


UP_DOWN = ((0.0, "down", "red"), (1.0, "up", "green"))
