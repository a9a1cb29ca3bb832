"""The few shapes our dashboards are made of, over grafana-foundation-sdk (development only, exact pin 0.0.21).

    Board("agent-loop-llm", "LLM", "What it shows", [Row("Latency", [line("TTFT p95", "s", q("expr", "{{job}}"))])])
    build(board) -> the dashboard as JSON text, the same bytes each time

The SDK leaves `refId` empty and does not check PromQL: reference ids are set here, and a test runs each expression.
Units are Grafana's: s, percentunit, bytes, reqps, short, celsius, watt, hertz, none.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

with warnings.catch_warnings():
    # The classic model warns on import in favour of dashboard v2, which Grafana before 13 does not provision.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common as common_builders
    from grafana_foundation_sdk.builders import dashboard as dashboard_builders
    from grafana_foundation_sdk.builders import logs as logs_builders
    from grafana_foundation_sdk.builders import loki, prometheus, statetimeline, timeseries
    from grafana_foundation_sdk.builders import stat as stat_builders
    from grafana_foundation_sdk.builders import table as table_builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

METRICS = common.DataSourceRef(type_val="prometheus", uid="prometheus")
LOGS = common.DataSourceRef(type_val="loki", uid="loki")
COLOURS = ("green", "yellow", "orange", "red")


@dataclass(frozen=True, slots=True)
class Query:
    """One expression, PromQL or of a log panel LogQL, and the legend of its lines ({{label}} is filled in)."""

    expr: str
    legend: str = ""
    exemplars: bool = False


q = Query


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: how it is drawn (`kind`), its unit, its queries, and its width of 24 columns."""

    kind: str
    title: str
    unit: str
    queries: tuple[Query, ...]
    description: str = ""
    width: int = 8
    limits: tuple[float, ...] = ()
    """Values at which the colour turns yellow, orange, red, ascending; drawn as lines in a time series."""
    falling: bool = False
    """True: low values are the bad ones (`limits` then turn red, orange, yellow, green)."""
    stacked: bool = False
    names: tuple[tuple[float, str, str], ...] = ()
    """Of a state timeline or stat: value, text, colour."""
    most: float | None = None
    """Top of the axis."""
    signed: bool = False
    """True: values below zero mean something, so the axis does not begin at zero."""
    logs: bool = False
    """True: its queries are LogQL and ask Loki."""


def line(title: str, unit: str, *queries: Query, **more: Any) -> Panel:
    """A time series."""
    return Panel("line", title, unit, queries, **more)


def stat(title: str, unit: str, *queries: Query, width: int = 6, **more: Any) -> Panel:
    """The present value, large."""
    return Panel("stat", title, unit, queries, width=width, **more)


def states(title: str, *queries: Query, width: int = 12, **more: Any) -> Panel:
    """A state over time, as coloured bands."""
    return Panel("states", title, "none", queries, width=width, **more)


def table(title: str, *queries: Query, width: int = 24, **more: Any) -> Panel:
    """The labels of the present series, a row each."""
    return Panel("table", title, "none", queries, width=width, **more)


def lines(title: str, *queries: Query, width: int = 24, **more: Any) -> Panel:
    """Log lines, newest first."""
    return Panel("lines", title, "none", queries, width=width, logs=True, **more)


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `uid` is its address and file name."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    tags: tuple[str, ...] = ("agent-loop",)
    since: str = "now-1h"
    jobs: bool = False
    """Whether a reader can pick the job (stable, canary) at the top: expressions then say job=~"$job"."""
    searched: bool = False
    """Whether a reader can search log lines at the top: expressions then say $service, $run and $words."""
    links: Sequence[tuple[str, str]] = field(default_factory=tuple)


def build(board: Board) -> str:
    """The dashboard as Grafana's JSON, keys sorted, ending in a newline."""
    made = (
        dashboard_builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(list(board.tags))
        .readonly()
        .timezone("browser")
        .refresh("30s")
        .time(board.since, "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard_builders.DashboardLink("Agent Loop")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags(["agent-loop"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    if board.jobs:
        jobs = 'label_values(up{job=~"agent|agent-canary"}, job)'
        made.with_variable(_choice("job", "Deployment", METRICS, jobs, every="agent|agent-canary"))
    if board.searched:
        made.with_variable(_choice("service", "Service", LOGS, "label_values(service)", every=".+"))
        for name, label in (("run", "Run"), ("words", "Words")):
            made.with_variable(dashboard_builders.TextBoxVariable(name).label(label).default_value(""))
    number = 1
    for row in board.rows:
        made.with_row(dashboard_builders.Row(row.title).id(number))
        number += 1
        for panel in row.panels:
            made.with_panel(_panel(panel).id(number))
            number += 1
    for text, url in board.links:
        made.link(
            dashboard_builders.DashboardLink(text).type(dashboard.DashboardLinkType.LINK).url(url).target_blank(True)
        )
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(made.build())), indent=1, sort_keys=True) + "\n"


_KINDS = {
    "line": timeseries.Panel,
    "stat": stat_builders.Panel,
    "states": statetimeline.Panel,
    "table": table_builders.Panel,
    "lines": logs_builders.Panel,
}


def _choice(name: str, label: str, source: common.DataSourceRef, query: str, *, every: str) -> Any:
    """A variable with several of a label's values at a time; `every` is what stands for all of them."""
    return (
        dashboard_builders.QueryVariable(name)
        .label(label)
        .datasource(source)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(every)
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> Any:
    made: Any = _KINDS[panel.kind]()
    made.title(panel.title).description(panel.description).datasource(LOGS if panel.logs else METRICS)
    made.unit(panel.unit)
    made.span(panel.width).height(_HEIGHT[panel.kind]).thresholds(_thresholds(panel))
    if panel.names:
        made.mappings([_value_names(panel)])
    if panel.most is not None:
        made.max(panel.most)
    for letter, query in zip("ABCDEFGHIJ", panel.queries, strict=False):
        made.with_target(_target(panel, query).ref_id(letter))
    if panel.kind == "line":
        made.line_width(1).fill_opacity(25 if panel.stacked else 8)
        if not panel.signed:
            made.min(0)
        made.show_points(common.VisibilityMode.AUTO).span_nulls(120_000)
        made.tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
        made.legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        if panel.stacked:
            made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        if panel.limits:
            made.thresholds_style(
                common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
            )
    if panel.kind == "stat":
        made.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.AREA)
        made.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    if panel.kind == "table":
        hidden = {"Time": True, "Value": True, "__name__": True}
        made.with_transformation(dashboard.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden}))
    if panel.kind == "lines":
        made.show_time(True).wrap_log_message(True).enable_log_details(True)
        made.sort_order(common.LogsSortOrder.DESCENDING).dedup_strategy(common.LogsDedupStrategy.NONE)
    return made


_HEIGHT = {"line": 8, "stat": 5, "states": 7, "table": 7, "lines": 16}


def _target(panel: Panel, query: Query) -> Any:
    if panel.logs:
        return loki.Dataquery().expr(query.expr).legend_format(query.legend).query_type("range").datasource(LOGS)
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").datasource(METRICS)
    if panel.kind == "table":
        return target.instant().format(PromQueryFormat.TABLE)
    return target.range().exemplar(query.exemplars)


def _thresholds(panel: Panel) -> Any:
    colours = COLOURS if len(panel.limits) > 1 else (COLOURS[0], COLOURS[-1])
    colours = colours[: len(panel.limits) + 1]
    if len(panel.limits) == 2:
        colours = ("green", "yellow", "red")
    if panel.falling:
        colours = tuple(reversed(colours))
    steps = [dashboard.Threshold(value=None, color=colours[0])]
    steps += [dashboard.Threshold(value=v, color=c) for v, c in zip(panel.limits, colours[1:], strict=True)]
    return dashboard_builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _value_names(panel: Panel) -> Any:
    return dashboard.ValueMap(
        options={
            f"{value:g}": dashboard.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, text, colour) in enumerate(panel.names)
        }
    )
