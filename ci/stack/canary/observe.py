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

RATES: dict[str, tuple[str, str]] = {
    "http_errors": (
        'http_server_request_duration_seconds_count{{job="{job}",http_response_status_code=~"5.."}}',
        'http_server_request_duration_seconds_count{{job="{job}"}}',
    ),
    "run_failures": (
        f'agent_loop_runs_total{{{{job="{{job}}",outcome=~"{FAILED}"}}}}',
        f'agent_loop_runs_total{{{{job="{{job}}",outcome!~"{NOT_JUDGED}"}}}}',
    ),
    "limits_hit": (
        f'agent_loop_runs_total{{{{job="{{job}}",outcome=~"{LIMITS}"}}}}',
        f'agent_loop_runs_total{{{{job="{{job}}",outcome!~"{NOT_JUDGED}"}}}}',
    ),
    "task_failures": (
        'agent_loop_tasks_total{{job="{job}",result=~"partial|failed|refused"}}',
        'agent_loop_tasks_total{{job="{job}",result!="abandoned"}}',
    ),
    "refusals": (
        'agent_loop_tasks_total{{job="{job}",result="refused"}}',
        'agent_loop_tasks_total{{job="{job}",result!="abandoned"}}',
    ),
    "retries": (
        'agent_loop_task_retries_total{{job="{job}"}}',
        'agent_loop_tasks_total{{job="{job}",result!="abandoned"}}',
    ),
    "thumbs_down": (
        'agent_loop_feedback_total{{job="{job}",thumbs="down"}}',
        'agent_loop_feedback_total{{job="{job}"}}',
    ),
    "tool_errors": (
        'gen_ai_execute_tool_duration_seconds_count{{job="{job}",error_type!=""}}',
        'gen_ai_execute_tool_duration_seconds_count{{job="{job}"}}',
    ),
}
"""Gate to the counters of its bad events and of all of them."""

SUCCESSES = 'agent_loop_tasks_total{{job="{job}",result="success"}}'
COST, SECONDS = 'agent_loop_cost_total{{job="{job}"}}', 'agent_loop_model_seconds_total{{job="{job}"}}'
LATENCY = 'gen_ai_server_time_to_first_token_seconds_bucket{{job="{job}"}}'
PAGES = 'ALERTS{alertstate="firing",severity="page"}'


def observe(ask: Ask, since: float, until: float) -> Observation:
    """Read every gate for both variants. Raises StackError when Prometheus does not answer."""
    window = max(int(until - since), 1)

    def increase(selector: str) -> float:
        vector = ask(f"sum(increase({selector}[{window}s]))", until)
        return float(vector[0]["value"][1]) if vector else 0.0

    def count(selector: str) -> int:
        return round(increase(selector))

    def rates(job: str) -> Mapping[str, Rate | Histogram]:
        found: dict[str, Rate | Histogram] = {}
        for name, (bad, total) in RATES.items():
            everything = count(total.format(job=job))
            found[name] = Rate(min(count(bad.format(job=job)), everything), everything)
        vector = ask(f"sum by (le) (increase({LATENCY.format(job=job)}[{window}s]))", until)
        found["first_token"] = histogram({float(v["metric"]["le"]): float(v["value"][1]) for v in vector})
        return found

    def cost(job: str) -> Cost | None:
        successes = increase(SUCCESSES.format(job=job))
        if not successes:
            return None
        spent = increase(COST.format(job=job))
        return Cost(spent / successes, increase(SECONDS.format(job=job)) / successes)

    alerts = tuple(sorted({str(v["metric"].get("alertname", "?")) for v in ask(PAGES, until)}))
    stable, canary = rates(STABLE), rates(CANARY)
    runs = cast(Rate, canary["run_failures"]).total
    return Observation(runs, stable, canary, alerts, cost(STABLE), cost(CANARY))


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
