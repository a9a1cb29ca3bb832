"""Log lines of every service, where the stack keeps them to search (`up --logs`): how many, and which."""

from __future__ import annotations

from observability.grafana.panels import Board, Row, line, lines, q

FOUND = '{service=~"$service"} | run_id=~"$run.*" |= `$words`'
"""LogQL: what the reader asked for at the top; an empty field asks for everything."""


def counted(by: str, selector: str = "") -> str:
    """LogQL: lines found within the panel's resolution, by a label."""
    return f"sum by ({by}) (count_over_time({FOUND}{selector} [$__auto]))"


LOGS = Board(
    "agent-loop-logs",
    "9 Logs",
    "Lines of every service by service, run and words. A dot on a percentile of the other boards leads here.",
    [
        Row(
            "How many",
            [
                line("Lines by level", "short", q(counted("level"), "{{level}}"), stacked=True, logs=True, width=12),
                line(
                    "Errors by service",
                    "short",
                    q(counted("service", ' | level=~"error|critical"'), "{{service}}"),
                    description="Lines that a program itself calls an error; those without a level are not counted.",
                    logs=True,
                    width=12,
                ),
            ],
        ),
        Row("Which", [lines("Lines", q(FOUND))]),
    ],
    searched=True,
)
