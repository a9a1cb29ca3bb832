"""What drifted, and the fixed prompts."""

from __future__ import annotations

from observability.grafana.panels import Board, Row, line, q, stat, states

LEVELS = ((0.0, "stable", "green"), (1.0, "watch", "yellow"), (2.0, "drifted", "red"))
DRIFT = Board(
    "agent-loop-drift",
    "8 Drift",
    "Whether recent runs still look like the reference, and whether the model still answers fixed prompts alike.",
    [
        Row(
            "Inputs and outputs",
            [
                states("Verdict by feature", q("agent_loop_drift_level", "{{feature}}"), names=LEVELS, width=16),
                stat(
                    "Enough rows",
                    "none",
                    q("agent_loop_drift_sufficient"),
                    names=((0.0, "insufficient", "yellow"), (1.0, "yes", "green")),
                    width=4,
                ),
                stat(
                    "Since the last run",
                    "s",
                    q("time() - agent_loop_drift_last_run_timestamp_seconds"),
                    limits=(10800,),
                    width=4,
                ),
                line(
                    "Population stability index",
                    "none",
                    q('agent_loop_drift_score{method="psi"}', "{{feature}}"),
                    limits=(0.1, 0.25),
                    width=12,
                ),
                line(
                    "Other distances",
                    "none",
                    q('agent_loop_drift_score{method!="psi"}', "{{feature}} {{method}}"),
                    width=8,
                ),
                line("Rows compared", "short", q("agent_loop_drift_samples", "{{set}}"), width=4),
            ],
        ),
        Row(
            "Fixed prompts",
            [
                line(
                    "Answers that changed",
                    "percentunit",
                    q("agent_loop_probe_changed_ratio", "changed"),
                    limits=(0.2,),
                    most=1,
                ),
                line("Duration", "s", q("agent_loop_probe_duration_seconds", "last prompt")),
                line("Failures in an hour", "short", q("increase(agent_loop_probe_failures_total[1h])", "failures")),
                stat(
                    "Certificate ends in",
                    "s",
                    q("agent_loop_tls_expiry_timestamp_seconds - time()", "{{server}}"),
                    limits=(604800.0, 1209600.0),
                    falling=True,
                ),
            ],
        ),
    ],
    since="now-7d",
)
