"""What is full or nearly: queue, slots, processes, store."""

from __future__ import annotations

from observability.grafana.boards.queries import JOB, p95, rate
from observability.grafana.panels import Board, Row, line, q, states

SATURATION = Board(
    "agent-loop-saturation",
    "4 Saturation",
    "How full the service is: queue, upstream, circuit, streams, event loop, process.",
    [
        Row(
            "Admission",
            [
                line(
                    "Queue",
                    "short",
                    q(f"agent_loop_admission_queue_depth{{{JOB}}}", "waiting {{instance}}"),
                    q(f"agent_loop_admission_queue_limit{{{JOB}}}", "limit {{instance}}"),
                ),
                line("Wait p95", "s", p95("agent_loop_admission_wait_seconds", "instance")),
                line(
                    "Refused",
                    "reqps",
                    q(rate("agent_loop_admission_rejected_total", "reason"), "{{reason}}"),
                    stacked=True,
                ),
            ],
        ),
        Row(
            "Upstream",
            [
                line(
                    "Places in use at the backend", "short", q(f"agent_loop_admission_active{{{JOB}}}", "{{instance}}")
                ),
                line(
                    "Attempts by end",
                    "reqps",
                    q(rate("agent_loop_upstream_attempts_total", "outcome"), "{{outcome}}"),
                    stacked=True,
                ),
                line(
                    "Fallbacks",
                    "reqps",
                    q(rate("agent_loop_fallbacks_total", "from, to, reason"), "{{from}} to {{to}}: {{reason}}"),
                ),
                states(
                    "Circuit breaker open",
                    q(f'agent_loop_upstream_circuit_state{{{JOB},state="open"}}', "{{instance}}"),
                    names=((0.0, "closed", "green"), (1.0, "open", "red")),
                ),
                line(
                    "Aborted upstream calls",
                    "reqps",
                    q(rate("agent_loop_upstream_aborts_total", "cause"), "{{cause}}"),
                    width=12,
                ),
            ],
        ),
        Row(
            "Streams and process",
            [
                line("Open streams", "short", q(f"agent_loop_streams_active{{{JOB}}}", "{{instance}}"), width=6),
                line(
                    "Stalled streams",
                    "short",
                    q(f"increase(agent_loop_stream_stalls_total{{{JOB}}}[$__rate_interval])", "{{instance}}"),
                    width=6,
                ),
                line(
                    "Event loop lag",
                    "s",
                    q(f"agent_loop_event_loop_lag_seconds{{{JOB}}}", "{{instance}}"),
                    limits=(0.1,),
                    width=6,
                ),
                line(
                    "CPU of the process",
                    "percentunit",
                    q(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}"),
                    width=6,
                ),
                line(
                    "Memory of the process",
                    "bytes",
                    q(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"),
                    width=12,
                ),
                line(
                    "Open files",
                    "short",
                    q(f"process_open_fds{{{JOB}}}", "{{instance}}"),
                    q(f"process_max_fds{{{JOB}}}", "limit {{instance}}"),
                    width=12,
                ),
            ],
        ),
    ],
    jobs=True,
)
