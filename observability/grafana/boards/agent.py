"""Runs and tools."""

from __future__ import annotations

from observability.grafana.boards.queries import JOB, mean, rate, spread
from observability.grafana.panels import Board, Row, line, q, stat

AGENT = Board(
    "agent-loop-agent",
    "3 Agent and tools",
    "How runs end, how many steps they take, and how tools behave.",
    [
        Row(
            "Runs",
            [
                line("Runs by outcome", "reqps", q(f"outcome:runs:rate5m{{{JOB}}}", "{{outcome}}"), stacked=True),
                stat(
                    "Answered (of runs not stopped by their caller)",
                    "percentunit",
                    q(
                        f'sum(rate(agent_loop_runs_total{{{JOB},outcome="completed"}}[$__rate_interval])) / '
                        f'sum(rate(agent_loop_runs_total{{{JOB},outcome!~"cancelled|client_gone"}}[$__rate_interval]))'
                    ),
                    limits=(0.95, 0.99),
                    falling=True,
                    width=8,
                ),
                stat("In progress", "short", q(f"sum(agent_loop_runs_active{{{JOB}}})"), width=8),
                line(
                    "Duration",
                    "s",
                    *spread("gen_ai_invoke_agent_duration_seconds", "gen_ai_agent_name", exemplars=True),
                ),
                line(
                    "Model calls in a run, p95",
                    "short",
                    q(f"agent:inference_calls:p95_30m{{{JOB}}}", "{{gen_ai_agent_name}}"),
                ),
                line(
                    "Tool calls in a run, mean",
                    "short",
                    q(mean("gen_ai_invoke_agent_tool_calls", "gen_ai_agent_name"), "{{gen_ai_agent_name}}"),
                ),
            ],
        ),
        Row(
            "Tools",
            [
                line("Calls", "reqps", q(f"tool:calls:rate5m{{{JOB}}}", "{{gen_ai_tool_name}}"), width=6),
                line("Errors", "percentunit", q(f"tool:errors:ratio_rate5m{{{JOB}}}", "{{gen_ai_tool_name}}"), width=6),
                line("Duration p95", "s", q(f"tool:duration_seconds:p95_5m{{{JOB}}}", "{{gen_ai_tool_name}}"), width=6),
                line(
                    "Sent back to the model for repair",
                    "reqps",
                    q(rate("agent_loop_tool_repairs_total", "reason"), "{{reason}}"),
                    width=6,
                ),
            ],
        ),
    ],
    jobs=True,
)
