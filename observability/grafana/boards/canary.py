"""Stable and canary side by side."""

from __future__ import annotations

from typing import Any

from observability.grafana.boards.queries import increase, rate, share
from observability.grafana.panels import Board, Panel, Query, Row, line, q, table

BOTH = 'job=~"agent|agent-canary"'
FIRST_TOKEN = (
    f"histogram_quantile(0.95, sum by (job, le) (rate(gen_ai_server_time_to_first_token_seconds_bucket{{{BOTH}}}[5m])))"
)
COMPLETED = share(
    "agent_loop_runs_total", f'{BOTH},outcome="completed"', f'{BOTH},outcome!~"cancelled|client_gone"', "job"
)


def difference(expression: str) -> str:
    """PromQL: the canary's value of an expression by job, less the stable one's."""
    canary, stable = (expression.replace(BOTH, f'job="{job}"') for job in ("agent-canary", "agent"))
    return f"({canary}) - ignoring (job) ({stable})"


def per_success(metric: str) -> str:
    """PromQL: what one successful task takes of a counter, by job."""
    successes = f'sum by (job) (rate(agent_loop_tasks_total{{{BOTH},result="success"}}[5m]))'
    return f"sum by (job) (rate({metric}{{{BOTH}}}[5m])) / {successes}"


def both(expression: str) -> Query:
    """One line for the stable service, one for the canary."""
    return q(expression, "{{job}}")


def ratio(title: str, metric: str, part: str, whole: str = BOTH, **more: Any) -> Panel:
    """The share of a counter's events that match `part`, stable beside canary."""
    return line(title, "percentunit", both(share(metric, part, whole, "job")), **more)


CANARY = Board(
    "agent-loop-canary",
    "7 Canary",
    "Stable and canary side by side: the figures that the controller decides by.",
    [
        Row(
            "Who gets what",
            [
                line("Runs", "reqps", both(f"job:runs:rate5m{{{BOTH}}}")),
                line(
                    "Share of the canary",
                    "percentunit",
                    q('sum(job:runs:rate5m{job="agent-canary"}) / sum(job:runs:rate5m)', "canary"),
                    most=1,
                    width=8,
                ),
                table("Builds", q(f"agent_loop_build_info{{{BOTH}}}"), width=8),
            ],
        ),
        Row(
            "Guardrails",
            [
                ratio(
                    "Answered with a server error",
                    "http_server_request_duration_seconds_count",
                    f'{BOTH},http_response_status_code=~"5.."',
                ),
                line("Time to first token p95", "s", both(FIRST_TOKEN), limits=(2.5,)),
                ratio("Tool errors", "gen_ai_execute_tool_duration_seconds_count", f'{BOTH},error_type!=""'),
                ratio("Runs that met a limit", "agent_loop_runs_total", f'{BOTH},outcome=~"max_.*"'),
                line("Runs completed", "percentunit", both(COMPLETED)),
                line(
                    "Output tokens for each completed run",
                    "short",
                    both(
                        f"job:output_tokens:rate5m{{{BOTH}}} / on (job) sum by (job) "
                        f"(outcome:runs:rate5m{{{BOTH},outcome='completed'}})"
                    ),
                ),
            ],
        ),
        Row(
            "What answers are worth",
            [
                ratio(
                    "Tasks with success",
                    "agent_loop_tasks_total",
                    f'{BOTH},result="success"',
                    f'{BOTH},result!="abandoned"',
                    most=1,
                ),
                line("Asked again", "reqps", both(rate("agent_loop_task_retries_total", "job", BOTH))),
                line(
                    "Thumbs",
                    "short",
                    q(increase("agent_loop_feedback_total", "job, thumbs", BOTH), "{{job}} {{thumbs}}"),
                ),
                line("Cost of a success", "short", both(per_success("agent_loop_cost_total"))),
                line("Model seconds of a success", "s", both(per_success("agent_loop_model_seconds_total"))),
            ],
        ),
        Row(
            "Canary less stable",
            [
                line(
                    "Completed",
                    "percentunit",
                    q(difference(COMPLETED), "difference"),
                    width=12,
                    signed=True,
                    description="Below zero: the canary completes fewer.",
                ),
                line(
                    "Time to first token p95",
                    "s",
                    q(difference(FIRST_TOKEN), "difference"),
                    width=12,
                    signed=True,
                    description="Above zero: the canary is slower.",
                ),
            ],
        ),
    ],
    since="now-3h",
)
