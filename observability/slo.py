"""Service level objectives: `slo.yml` in, recording rules and multi-window burn-rate alerts out.

    rules(load(SLO_FILE))     -> the rule groups as plain data
    render(load(SLO_FILE))    -> the text of prometheus/rules/slo.yml

For each objective and window W there is one series `slo:bad:ratio_rateW{slo}`: the share of bad events, 0 when
there was traffic and nothing bad, absent without traffic. The alerts follow the multi-window, multi-burn-rate form
of Google's SRE workbook (chapter 5): a burn rate of 14.4 spends 2 % of a 28-day budget in an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SLO_FILE = HERE / "slo.yml"
RULES_FILE = HERE / "prometheus" / "rules" / "slo.yml"
RUNBOOKS = "https://github.com/agent-loop/agent-loop/blob/main/docs/runbooks/"

LONG = ("1d", "3d", "28d")
"""Windows evaluated every two minutes: they move slowly and read many samples."""


@dataclass(frozen=True, slots=True)
class BurnRate:
    """One pair of windows: alert when both burn the budget `factor` times too fast."""

    factor: float
    long: str
    short: str
    severity: str


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective: `objective` percent of `total` are not `bad`; both are PromQL with WINDOW in it."""

    name: str
    alert: str
    objective: float
    title: str
    bad: str
    total: str

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.objective / 100, 10)


@dataclass(frozen=True, slots=True)
class Slos:
    """The whole file."""

    period: str
    minimum_events_per_hour: int
    burn_rates: tuple[BurnRate, ...]
    slos: tuple[Objective, ...]


class SloError(ValueError):
    """The file does not describe objectives; the message names the place."""


def load(path: Path) -> Slos:
    """Read and check an SLO file; raises SloError with the place that is wrong."""
    try:
        data: dict[str, Any] = yaml.safe_load(path.read_text())
        parsed = Slos(
            period=data["period"],
            minimum_events_per_hour=int(data["minimum_events_per_hour"]),
            burn_rates=tuple(BurnRate(**entry) for entry in data["burn_rates"]),
            slos=tuple(Objective(**entry) for entry in data["slos"]),
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SloError(f"Not an SLO file: {error}, {path}. See observability/slo.yml for the form.") from error
    for slo in parsed.slos:
        if not 0 < slo.objective < 100:
            raise SloError(f"Objective out of range: {slo.objective}, {slo.name} in {path}. Use 0 < percent < 100.")
        for field in ("bad", "total"):
            if "WINDOW" not in getattr(slo, field):
                raise SloError(f"No WINDOW in '{field}', {slo.name} in {path}. Put it where the range belongs.")
    return parsed


def windows(slos: Slos) -> list[str]:
    """Every window that is needed, shortest first."""
    order = ["5m", "30m", "1h", "2h", "6h", "1d", "3d", slos.period]
    used = {w for rate in slos.burn_rates for w in (rate.long, rate.short)} | {slos.period}
    return [*(w for w in order if w in used), *sorted(used - set(order))]


def ratio(slo: Objective, window: str) -> str:
    """PromQL: the share of bad events over `window`."""
    bad, total = (text.strip().replace("WINDOW", window) for text in (slo.bad, slo.total))
    return f"(({bad}) or vector(0)) / (({total}) > 0)"


def rules(slos: Slos) -> dict[str, Any]:
    """The rule file as data: recordings, slow recordings, alerts."""
    fast = [_recording(slo, w) for slo in slos.slos for w in windows(slos) if w not in LONG]
    slow = [_recording(slo, w) for slo in slos.slos for w in windows(slos) if w in LONG]
    facts: list[dict[str, Any]] = []
    for slo in slos.slos:
        label = {"slo": slo.name}
        events = slo.total.strip().replace("WINDOW", "1h")
        facts += [
            {"record": "slo:events:increase1h", "expr": f"({events}) * 3600", "labels": label},
            {"record": "slo:objective:ratio", "expr": f"vector({slo.objective / 100:g})", "labels": label},
            {
                "record": "slo:burn_rate:ratio_rate1h",
                "expr": f'slo:bad:ratio_rate1h{{slo="{slo.name}"}} / {slo.budget:g}',
                "labels": label,
            },
            {
                "record": "slo:error_budget:remaining_ratio",
                "expr": f'1 - slo:bad:ratio_rate{slos.period}{{slo="{slo.name}"}} / {slo.budget:g}',
                "labels": label,
            },
        ]
    alerts = [alert for slo in slos.slos for alert in _alerts(slo, slos)]
    return {
        "groups": [
            {"name": "slo-ratios", "interval": "30s", "rules": fast + facts},
            {"name": "slo-ratios-long", "interval": "2m", "rules": slow},
            {"name": "slo-alerts", "interval": "30s", "rules": alerts},
        ]
    }


def render(slos: Slos) -> str:
    """The text of the rule file."""
    head = "# Generated from observability/slo.yml by `python -m observability slo`. Do not edit.\n"
    return head + yaml.safe_dump(rules(slos), sort_keys=False, width=4096)


def _recording(slo: Objective, window: str) -> dict[str, Any]:
    return {"record": f"slo:bad:ratio_rate{window}", "expr": ratio(slo, window), "labels": {"slo": slo.name}}


def _alerts(slo: Objective, slos: Slos) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for severity, suffix in (("page", "FastBurn"), ("ticket", "SlowBurn")):
        pairs = [rate for rate in slos.burn_rates if rate.severity == severity]
        if not pairs:
            continue
        burning = " or ".join(_burning(slo, rate) for rate in pairs)
        enough = f'slo:events:increase1h{{slo="{slo.name}"}} > {slos.minimum_events_per_hour}'
        name = f"{slo.alert}{suffix}"
        found.append(
            {
                "alert": name,
                "expr": f"({burning}) and {enough}",
                "labels": {"severity": severity, "service": "agent", "slo": slo.name},
                "annotations": {
                    "summary": f"The error budget of '{slo.name}' burns too fast",
                    "description": f"{slo.title}: {slo.objective:g} % promised over {slos.period}; "
                    "{{ $value | humanizePercentage }} were bad.",
                    "runbook_url": f"{RUNBOOKS}{name}.md",
                },
            }
        )
    return found


def _burning(slo: Objective, rate: BurnRate) -> str:
    limit = f"{rate.factor * slo.budget:.10g}"
    both = [f'slo:bad:ratio_rate{w}{{slo="{slo.name}"}} > {limit}' for w in (rate.long, rate.short)]
    return f"({both[0]} and {both[1]})"
