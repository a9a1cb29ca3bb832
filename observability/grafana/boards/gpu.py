"""The cards."""

from __future__ import annotations

from observability.grafana.boards.queries import UP_DOWN
from observability.grafana.panels import Board, Row, line, q, stat

GPU = Board(
    "agent-loop-gpu",
    "6 GPU and training",
    "The card, second by second, and what the training run makes of it.",
    [
        Row(
            "Card",
            [
                stat("GPU", "none", q("gpu_up"), names=UP_DOWN, width=4),
                line("Utilisation", "percentunit", q("gpu_utilization_ratio", "GPU {{gpu}}"), most=1, width=10),
                line(
                    "Memory",
                    "bytes",
                    q("gpu_memory_used_bytes", "used {{gpu}}"),
                    q("gpu_memory_total_bytes", "total {{gpu}}"),
                    width=10,
                ),
                line(
                    "Power",
                    "watt",
                    q("gpu_power_watts", "GPU {{gpu}}"),
                    q("gpu_power_limit_watts", "limit {{gpu}}"),
                    width=6,
                ),
                line("Temperature", "celsius", q("gpu_temperature_celsius", "GPU {{gpu}}"), limits=(85,), width=6),
                line("Clock", "hertz", q("gpu_sm_clock_hertz", "GPU {{gpu}}"), width=6),
                line(
                    "Errors in an hour",
                    "short",
                    q("increase(gpu_ecc_uncorrected_errors_total[1h])", "memory, GPU {{gpu}}"),
                    q("increase(gpu_xid_errors_total[1h])", "XID {{xid}}, GPU {{gpu}}"),
                    width=6,
                ),
            ],
        ),
        Row(
            "Training",
            [
                stat(
                    "Run",
                    "none",
                    q("training_running"),
                    names=((0.0, "idle", "text"), (1.0, "training", "green")),
                    width=4,
                ),
                line("Loss", "none", q("training_loss", "{{run}}"), width=10),
                line("Step", "short", q("training_step", "{{run}}"), width=10),
                line("Seconds a step", "s", q("training_step_seconds", "{{run}}")),
                line("Tokens a second", "short", q("training_tokens_per_second", "{{run}}")),
                line(
                    "Age of the last checkpoint",
                    "s",
                    q("time() - training_last_checkpoint_timestamp_seconds", "{{run}}"),
                    limits=(7200,),
                ),
            ],
        ),
        Row(
            "Backup",
            [
                line(
                    "Age of the last verified backup",
                    "s",
                    q("time() - backup_last_success_timestamp_seconds", "{{what}}"),
                    limits=(7200,),
                    width=6,
                ),
                line("Size", "bytes", q("backup_size_bytes", "{{what}}"), width=6),
                line("Kept", "short", q("backup_snapshots", "{{what}}"), width=6),
                line(
                    "Duration and failures",
                    "short",
                    q("backup_duration_seconds", "seconds {{what}}"),
                    q("increase(backup_failures_total[1h])", "failures {{what}}"),
                    width=6,
                ),
            ],
        ),
    ],
    since="now-3h",
)
