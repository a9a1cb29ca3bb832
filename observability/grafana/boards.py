"""The eight dashboards: what each asks of Prometheus. `build.py` writes them to dashboards/*.json.

Add a panel here, run `make dashboards` (or `python -m observability.grafana.build`), commit both.
"""

from __future__ import annotations

from observability.grafana.panels import Board, Row, line, q, stat, states, table

JOB = 'job=~"$job"'


def quantile(share: float, metric: str, by: str, selector: str = JOB) -> str:
    """PromQL: a quantile of a histogram over the panel's resolution."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))"


def rate(metric: str, by: str, selector: str = JOB) -> str:
    """PromQL: events a second, by labels."""
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def mean(metric: str, by: str, selector: str = JOB) -> str:
    """PromQL: the mean of a histogram's observations, by labels."""
    inside = f"{{{selector}}}[$__rate_interval]"
    return f"sum by ({by}) (rate({metric}_sum{inside})) / sum by ({by}) (rate({metric}_count{inside}))"


def share(metric: str, part: str, whole: str, by: str, window: str = "5m") -> str:
    """PromQL: the rate of the series that match `part` over the rate of those that match `whole`."""
    top, bottom = (f"sum by ({by}) (rate({metric}{{{selector}}}[{window}]))" for selector in (part, whole))
    return f"{top} / {bottom}"


def increase(metric: str, by: str, selector: str = "") -> str:
    """PromQL: events within the panel's resolution, by labels."""
    return f"sum by ({by}) (increase({metric}{{{selector}}}[$__rate_interval]))"


UP_DOWN = ((0.0, "down", "red"), (1.0, "up", "green"))

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

LLM = Board(
    "agent-loop-llm",
    "2 Model",
    "Latency and throughput of model calls, use of the context, and what Ollama does with the GPU.",
    [
        Row(
            "Latency as callers see it",
            [
                line(
                    "Time to first token",
                    "s",
                    q(
                        quantile(0.5, "gen_ai_server_time_to_first_token_seconds", "gen_ai_request_model"),
                        "p50 {{gen_ai_request_model}}",
                    ),
                    q(
                        quantile(0.95, "gen_ai_server_time_to_first_token_seconds", "gen_ai_request_model"),
                        "p95 {{gen_ai_request_model}}",
                        exemplars=True,
                    ),
                    limits=(2.5,),
                    description="From the request's arrival. 2.5 s is promised for 95 %. A dot is one run: click it.",
                ),
                line(
                    "Time per output token",
                    "s",
                    q(
                        quantile(0.5, "gen_ai_server_time_per_output_token_seconds", "gen_ai_request_model"),
                        "p50 {{gen_ai_request_model}}",
                    ),
                    q(
                        quantile(0.95, "gen_ai_server_time_per_output_token_seconds", "gen_ai_request_model"),
                        "p95 {{gen_ai_request_model}}",
                    ),
                ),
                line(
                    "First chunk and gap between chunks, p95",
                    "s",
                    q(
                        quantile(0.95, "gen_ai_client_operation_time_to_first_chunk_seconds", "gen_ai_request_model"),
                        "first {{gen_ai_request_model}}",
                    ),
                    q(
                        quantile(0.95, "gen_ai_client_operation_time_per_output_chunk_seconds", "gen_ai_request_model"),
                        "gap {{gen_ai_request_model}}",
                    ),
                ),
            ],
        ),
        Row(
            "Calls and tokens",
            [
                line(
                    "Tokens a second",
                    "short",
                    q(
                        rate("gen_ai_client_inference_tokens_total", "gen_ai_request_model, gen_ai_token_type"),
                        "{{gen_ai_token_type}} {{gen_ai_request_model}}",
                    ),
                ),
                line(
                    "Calls",
                    "reqps",
                    q(
                        rate("gen_ai_client_operation_duration_seconds_count", "gen_ai_request_model, error_type"),
                        "{{gen_ai_request_model}} {{error_type}}",
                    ),
                    stacked=True,
                ),
                line(
                    "Call duration p95",
                    "s",
                    q(
                        quantile(0.95, "gen_ai_client_operation_duration_seconds", "gen_ai_request_model"),
                        "{{gen_ai_request_model}}",
                    ),
                ),
            ],
        ),
        Row(
            "Context",
            [
                line(
                    "Context used, p95",
                    "percentunit",
                    q(
                        quantile(0.95, "agent_loop_context_used_ratio", "gen_ai_request_model"),
                        "{{gen_ai_request_model}}",
                    ),
                    limits=(0.9,),
                    most=1,
                    width=12,
                ),
                line(
                    "Did not fit",
                    "short",
                    q(
                        increase("agent_loop_context_truncations_total", "gen_ai_request_model, kind", JOB),
                        "{{gen_ai_request_model}} {{kind}}",
                    ),
                    width=12,
                ),
            ],
        ),
        Row(
            "Ollama",
            [
                states("Answers", q(f"ollama_up{{{JOB}}}", "{{instance}}"), names=UP_DOWN, width=8),
                line(
                    "Share of the model on the GPU",
                    "percentunit",
                    q(f"ollama_model_gpu_ratio{{{JOB}}}", "{{model}}"),
                    most=1,
                    description="Below 100 % part of it runs on the CPU, and everything is slower.",
                ),
                line(
                    "GPU memory of models", "bytes", q(f"ollama_model_vram_bytes{{{JOB}}}", "{{model}}"), stacked=True
                ),
                states(
                    "Loaded models",
                    q(f"ollama_model_loaded{{{JOB}}}", "{{model}}"),
                    names=((0.0, "no", "text"), (1.0, "loaded", "green")),
                    width=8,
                ),
                line(
                    "Where a call's time goes, mean",
                    "s",
                    q(mean("ollama_queue_duration_seconds", "model"), "queue {{model}}"),
                    q(mean("ollama_load_duration_seconds", "model"), "load {{model}}"),
                    q(mean("ollama_prompt_eval_duration_seconds", "model"), "prompt {{model}}"),
                    q(mean("ollama_eval_duration_seconds", "model"), "generate {{model}}"),
                    stacked=True,
                    width=16,
                ),
            ],
        ),
    ],
    jobs=True,
)

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
                    q(
                        quantile(0.5, "gen_ai_invoke_agent_duration_seconds", "gen_ai_agent_name"),
                        "p50 {{gen_ai_agent_name}}",
                    ),
                    q(
                        quantile(0.95, "gen_ai_invoke_agent_duration_seconds", "gen_ai_agent_name"),
                        "p95 {{gen_ai_agent_name}}",
                        exemplars=True,
                    ),
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
                line(
                    "Wait p95", "s", q(quantile(0.95, "agent_loop_admission_wait_seconds", "instance"), "{{instance}}")
                ),
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

NAMED = 'name!=""'
REAL_NETWORKS = 'device!~"lo|veth.*|br-.*"'
REAL_DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'
HOST = Board(
    "agent-loop-host",
    "5 Host and containers",
    "Use, saturation and errors of the machine and of each container.",
    [
        Row(
            "Host",
            [
                line(
                    "CPU used",
                    "percentunit",
                    q(
                        '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))',
                        "{{instance}}",
                    ),
                    most=1,
                    width=6,
                ),
                line(
                    "Load for each core",
                    "short",
                    q(
                        'node_load1 / on (instance) count by (instance) (node_cpu_seconds_total{mode="idle"})',
                        "{{instance}}",
                    ),
                    limits=(1,),
                    width=6,
                ),
                line(
                    "Memory used",
                    "percentunit",
                    q("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}"),
                    most=1,
                    width=6,
                ),
                line(
                    "Processes waiting",
                    "percentunit",
                    q("rate(node_pressure_cpu_waiting_seconds_total[$__rate_interval])", "for CPU"),
                    q("rate(node_pressure_memory_waiting_seconds_total[$__rate_interval])", "for memory"),
                    q("rate(node_pressure_io_waiting_seconds_total[$__rate_interval])", "for disk"),
                    width=6,
                ),
                line(
                    "Disk free",
                    "percentunit",
                    q(f"node_filesystem_avail_bytes{{{REAL_DISKS}}} / node_filesystem_size_bytes", "{{mountpoint}}"),
                    limits=(0.05, 0.15),
                    falling=True,
                ),
                line(
                    "Disk traffic",
                    "Bps",
                    q("sum by (device) (rate(node_disk_read_bytes_total[$__rate_interval]))", "read {{device}}"),
                    q("sum by (device) (rate(node_disk_written_bytes_total[$__rate_interval]))", "write {{device}}"),
                ),
                line(
                    "Network",
                    "Bps",
                    q(
                        rate("node_network_receive_bytes_total", "device", REAL_NETWORKS),
                        "in {{device}}",
                    ),
                    q(
                        rate("node_network_transmit_bytes_total", "device", REAL_NETWORKS),
                        "out {{device}}",
                    ),
                ),
            ],
        ),
        Row(
            "Containers",
            [
                line(
                    "CPU cores used",
                    "short",
                    q(
                        'sum by (name) (rate(container_cpu_usage_seconds_total{name!=""}[$__rate_interval]))',
                        "{{name}}",
                    ),
                    stacked=True,
                ),
                line(
                    "Throttled",
                    "percentunit",
                    q(
                        f"{rate('container_cpu_cfs_throttled_periods_total', 'name', NAMED)} / "
                        f"{rate('container_cpu_cfs_periods_total', 'name', NAMED)}",
                        "{{name}}",
                    ),
                    description="Share of scheduling periods in which the CPU limit held the container back.",
                ),
                line(
                    "Memory of the limit",
                    "percentunit",
                    q(
                        f"container_memory_working_set_bytes{{{NAMED}}} "
                        f"/ (container_spec_memory_limit_bytes{{{NAMED}}} > 0)",
                        "{{name}}",
                    ),
                    limits=(0.9,),
                    most=1,
                ),
                line(
                    "Out of memory",
                    "short",
                    q('sum by (name) (increase(container_oom_events_total{name!=""}[$__rate_interval]))', "{{name}}"),
                ),
                line(
                    "Network in and out",
                    "Bps",
                    q(
                        'sum by (name) (rate(container_network_receive_bytes_total{name!=""}[$__rate_interval]))',
                        "in {{name}}",
                    ),
                    q(
                        'sum by (name) (rate(container_network_transmit_bytes_total{name!=""}[$__rate_interval]))',
                        "out {{name}}",
                    ),
                ),
                line("Time since start", "s", q('time() - container_start_time_seconds{name!=""}', "{{name}}")),
            ],
        ),
    ],
)

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


CANARY = Board(
    "agent-loop-canary",
    "7 Canary",
    "Stable and canary side by side: the figures that the controller decides by.",
    [
        Row(
            "Who gets what",
            [
                line("Runs", "reqps", q(f"job:runs:rate5m{{{BOTH}}}", "{{job}}"), width=8),
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
                line(
                    "Answered with a server error",
                    "percentunit",
                    q(
                        share(
                            "http_server_request_duration_seconds_count",
                            f'{BOTH},http_response_status_code=~"5.."',
                            BOTH,
                            "job",
                        ),
                        "{{job}}",
                    ),
                ),
                line(
                    "Time to first token p95",
                    "s",
                    q(
                        FIRST_TOKEN,
                        "{{job}}",
                    ),
                    limits=(2.5,),
                ),
                line(
                    "Tool errors",
                    "percentunit",
                    q(
                        share("gen_ai_execute_tool_duration_seconds_count", f'{BOTH},error_type!=""', BOTH, "job"),
                        "{{job}}",
                    ),
                ),
                line(
                    "Runs that met a limit",
                    "percentunit",
                    q(
                        share("agent_loop_runs_total", f'{BOTH},outcome=~"max_.*"', BOTH, "job"),
                        "{{job}}",
                    ),
                ),
                line(
                    "Runs completed",
                    "percentunit",
                    q(
                        COMPLETED,
                        "{{job}}",
                    ),
                ),
                line(
                    "Output tokens for each completed run",
                    "short",
                    q(
                        f"job:output_tokens:rate5m{{{BOTH}}} / on (job) sum by (job) "
                        f"(outcome:runs:rate5m{{{BOTH},outcome='completed'}})",
                        "{{job}}",
                    ),
                ),
            ],
        ),
        Row(
            "Canary less stable",
            [
                line(
                    "Completed",
                    "percentunit",
                    q(
                        difference(COMPLETED),
                        "difference",
                    ),
                    width=12,
                    signed=True,
                    description="Below zero: the canary completes fewer.",
                ),
                line(
                    "Time to first token p95",
                    "s",
                    q(
                        difference(FIRST_TOKEN),
                        "difference",
                    ),
                    width=12,
                    signed=True,
                    description="Above zero: the canary is slower.",
                ),
            ],
        ),
    ],
    since="now-3h",
)

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

BOARDS = (SERVICE, LLM, AGENT, SATURATION, HOST, GPU, CANARY, DRIFT)
