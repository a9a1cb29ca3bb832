"""Rate, errors and duration of the service, and its objectives."""

from __future__ import annotations

from observability.grafana.boards.queries import JOB, UP_DOWN, rate
from observability.grafana.panels import Board, Row, line, q, stat, states, table

SERVICE = Board(
    "agent-loop-service",
    "1 Service and objectives",
    "Rate, errors, duration of each route; what is left of the error budgets; what fires now.",
    [
        Row(
            "Objectives",
            [
                stat(
                    "Error budget left (28 days)",
                    "percentunit",
                    q("slo:error_budget:remaining_ratio", "{{slo}}"),
                    limits=(0.0, 0.25),
                    falling=True,
                    width=12,
                ),
                line(
                    "Burn rate over an hour",
                    "short",
                    q("slo:burn_rate:ratio_rate1h", "{{slo}}"),
                    description="1 spends the budget in exactly 28 days; 14.4 pages.",
                    limits=(1, 6, 14.4),
                    width=12,
                ),
                table("Firing now", q('ALERTS{alertstate="firing",alertname!="Watchdog"}')),
            ],
        ),
        Row(
            "Requests",
            [
                line("Requests by route", "reqps", q(f"route:http_server_requests:rate5m{{{JOB}}}", "{{http_route}}")),
                line(
                    "Errors by route",
                    "percentunit",
                    q(f"route:http_server_request_errors:ratio_rate5m{{{JOB}}}", "{{http_route}}"),
                    description="Server errors and error events inside of streams, as a share of the route's requests.",
                ),
                line(
                    "Duration p95 by route",
                    "s",
                    q(f"route:http_server_request_duration_seconds:p95_5m{{{JOB}}}", "{{http_route}}"),
                ),
                line(
                    "Requests by status",
                    "reqps",
                    q(
                        rate("http_server_request_duration_seconds_count", "http_response_status_code"),
                        "{{http_response_status_code}}",
                    ),
                    stacked=True,
                ),
                line(
                    "In flight", "short", q(f"sum by (instance) (http_server_active_requests{{{JOB}}})", "{{instance}}")
                ),
                line(
                    "Synthetic prompt",
                    "s",
                    q("agent_loop_probe_duration_seconds", "duration"),
                    q("time() - agent_loop_probe_last_success_timestamp_seconds", "since the last answer"),
                    limits=(600,),
                ),
            ],
        ),
        Row(
            "Running",
            [
                table("Builds", q("agent_loop_build_info")),
                states("Targets", q("up", "{{job}} {{instance}}"), names=UP_DOWN, width=24),
            ],
        ),
    ],
    jobs=True,
)
