"""What Prometheus knows of both variants since a step began.

The variants are told apart by their scrape job (`agent`, `agent-canary`). Prometheus is asked with its own promtool
inside its container, since in production it publishes no port.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from ci.stack.canary.controller import Cost, Observation
from ci.stack.canary.gates import Histogram, Rate
from ci.stack.errors import StackError

Ask = Callable[[str, float], Any]
"""A PromQL expression and a time (seconds since the epoch) to the result vector."""

STABLE, CANARY = "agent", "agent-canary"
FAILED = "model_error|tool_error|interrupted"
LIMITS = "max_steps|max_tool_calls|max_time|max_tokens|max_cost"
NOT_JUDGED = "cancelled|client_gone"

JOBS = f'job=~"{STABLE}|{CANARY}"'
RUNS = f'agent_loop_runs_total{{{JOBS},outcome!~"{NOT_JUDGED}"}}'
TASKS = f'agent_loop_tasks_total{{{JOBS},result!="abandoned"}}'
REQUESTS = "http_server_request_duration_seconds_count"
TOOLS = "gen_ai_execute_tool_duration_seconds_count"

RATES: dict[str, tuple[str, str]] = {
    "http_errors": (f'{REQUESTS}{{{JOBS},http_response_status_code=~"5.."}}', f"{REQUESTS}{{{JOBS}}}"),
    "run_failures": (f'agent_loop_runs_total{{{JOBS},outcome=~"{FAILED}"}}', RUNS),
    "limits_hit": (f'agent_loop_runs_total{{{JOBS},outcome=~"{LIMITS}"}}', RUNS),
    "task_failures": (f'agent_loop_tasks_total{{{JOBS},result=~"partial|failed|refused"}}', TASKS),
    "refusals": (f'agent_loop_tasks_total{{{JOBS},result="refused"}}', TASKS),
    "retries": (f"agent_loop_task_retries_total{{{JOBS}}}", TASKS),
    "thumbs_down": (
        f'agent_loop_feedback_total{{{JOBS},thumbs="down"}}',
        f"agent_loop_feedback_total{{{JOBS}}}",
    ),
    "tool_errors": (f'{TOOLS}{{{JOBS},error_type!=""}}', f"{TOOLS}{{{JOBS}}}"),
}
"""Gate to the counters of its bad events and of all of them."""

COSTS = {
    "successes": f'agent_loop_tasks_total{{{JOBS},result="success"}}',
    "price": f"agent_loop_cost_total{{{JOBS}}}",
    "seconds": f"agent_loop_model_seconds_total{{{JOBS}}}",
}
LATENCY = f"gen_ai_server_time_to_first_token_seconds_bucket{{{JOBS}}}"
PAGES = 'ALERTS{alertstate="firing",severity="page"}'


def observe(ask: Ask, since: float, until: float) -> Observation:
    """Read every gate for both variants in three questions. Raises StackError when Prometheus does not answer."""
    window = max(int(until - since), 1)
    counters = {f"{gate} {part}": sel for gate, pair in RATES.items() for part, sel in zip(PARTS, pair, strict=True)}
    increases = {
        (str(v["metric"]["job"]), str(v["metric"]["series"])): float(v["value"][1])
        for v in ask(together(counters | COSTS, window), until)
    }
    buckets: dict[str, dict[float, float]] = {STABLE: {}, CANARY: {}}
    for v in ask(f"sum by (job, le) (increase({LATENCY}[{window}s]))", until):
        buckets[str(v["metric"]["job"])][float(v["metric"]["le"])] = float(v["value"][1])

    def variant(job: str) -> dict[str, Rate | Histogram]:
        found: dict[str, Rate | Histogram] = {"first_token": histogram(buckets[job])}
        for gate in RATES:
            bad, everything = (round(increases.get((job, f"{gate} {part}"), 0.0)) for part in PARTS)
            found[gate] = Rate(min(bad, everything), everything)
        return found

    def cost(job: str) -> Cost | None:
        successes, price, seconds = (increases.get((job, series), 0.0) for series in COSTS)
        return Cost(price / successes, seconds / successes) if successes else None

    alerts = tuple(sorted({str(v["metric"].get("alertname", "?")) for v in ask(PAGES, until)}))
    canary = variant(CANARY)
    runs = cast(Rate, canary["run_failures"]).total
    return Observation(runs, variant(STABLE), canary, alerts, cost(STABLE), cost(CANARY))


PARTS = ("bad", "total")


def together(counters: Mapping[str, str], window: int) -> str:
    """One expression for the increase of each counter by job, told apart by the label `series`."""
    return " or ".join(
        f'label_replace(sum by (job) (increase({selector}[{window}s])), "series", "{name}", "", "")'
        for name, selector in counters.items()
    )


def histogram(cumulative: Mapping[float, float]) -> Histogram:
    """Prometheus's cumulative buckets (upper bound to count) as counts of each bucket, lowest first."""
    counts: list[int] = []
    below = 0.0
    for bound in sorted(cumulative):
        counts.append(max(round(cumulative[bound] - below), 0))
        below = max(cumulative[bound], below)
    return Histogram(tuple(counts))


def query(expression: str, at: float) -> list[str]:
    """The promtool command line of an instant query, to run inside Prometheus's own container."""
    return ["promtool", "query", "instant", "--format=json", f"--time={at:.0f}", "http://localhost:9090", expression]


def answer(text: str, expression: str) -> list[dict[str, Any]]:
    """The result vector that promtool prints. Raises StackError naming the expression for anything else."""
    try:
        vector: list[dict[str, Any]] = json.loads(text)
        return [v for v in vector if math.isfinite(float(v["value"][1]))]
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(f"Prometheus gave no answer to '{expression}'. Is it up? 'agent-loop ps' tells.") from error
