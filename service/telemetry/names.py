"""Every metric name, label, bucket and label value the service exports, in one place.

Names follow the OpenTelemetry semantic conventions where those have one (`otel`): HTTP is stable, `gen_ai.*`
is still "Development" and renames things, so nothing else in the repository spells such a name. Rules, alerts
and dashboards may use only what `METRICS` lists; a test holds them to it.

    RUNS.name            'agent_loop_runs_total'
    BY_NAME['ollama_up'] the Metric with its type, labels and help

Prometheus form of an OpenTelemetry name: dots become underscores, the unit is a suffix, counters end in
`_total`, units in braces add nothing. Seconds are seconds; ratios run from 0 to 1.
"""

from __future__ import annotations

from service.telemetry.metric import (
    CALLS,
    CHUNK_SECONDS,
    FIRST_TOKEN_SECONDS,
    HTTP_SECONDS,
    OPERATION_SECONDS,
    PER_TOKEN_SECONDS,
    RATIO,
    RUN_SECONDS,
    TOOL_SECONDS,
    UPSTREAM_SECONDS,
    WAIT_SECONDS,
    Metric,
)
from service.telemetry.values import (
    AbortCause,
    Attempt,
    CircuitState,
    Outcome,
    RejectReason,
    TaskResult,
    Thumbs,
    TokenType,
)

__all__ = [
    "BY_NAME",
    "METRICS",
    "AbortCause",
    "Attempt",
    "CircuitState",
    "Metric",
    "Outcome",
    "RejectReason",
    "TaskResult",
    "Thumbs",
    "TokenType",
    "series",
]

OTHER_MODEL = "other"
"""What a model's name becomes in a label when it is not one the service was set up with."""

PROVIDER_OLLAMA = "ollama"
"""A permitted custom value of `gen_ai.provider.name`; the conventions' list does not have it."""


_CALL = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type")
_MODEL = ("gen_ai_provider_name", "gen_ai_request_model")

HTTP_DURATION = Metric(
    "http_server_request_duration_seconds",
    "histogram",
    "Duration of HTTP requests, from arrival to the last byte, by route template.",
    ("http_route", "http_request_method", "http_response_status_code", "error_type"),
    HTTP_SECONDS,
    "http.server.request.duration",
)
HTTP_ACTIVE = Metric(
    "http_server_active_requests",
    "gauge",
    "HTTP requests being answered now.",
    otel="http.server.active_requests",
)
MODEL_CALL = Metric(
    "gen_ai_client_operation_duration_seconds",
    "histogram",
    "Duration of one call to a model, streaming or not.",
    _CALL,
    OPERATION_SECONDS,
    "gen_ai.client.operation.duration",
)
FIRST_CHUNK = Metric(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "histogram",
    "From sending a streaming call upstream to its first chunk.",
    _MODEL,
    CHUNK_SECONDS,
    "gen_ai.client.operation.time_to_first_chunk",
)
PER_CHUNK = Metric(
    "gen_ai_client_operation_time_per_output_chunk_seconds",
    "histogram",
    "Mean time between chunks of one call, observed once per call (the convention says per chunk).",
    _MODEL,
    CHUNK_SECONDS,
    "gen_ai.client.operation.time_per_output_chunk",
)
FIRST_TOKEN = Metric(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    "From the arrival of a request at this service to its first token, queueing included.",
    ("gen_ai_request_model",),
    FIRST_TOKEN_SECONDS,
    "gen_ai.server.time_to_first_token",
)
PER_TOKEN = Metric(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    "Mean time per output token after the first, once per call.",
    ("gen_ai_request_model",),
    PER_TOKEN_SECONDS,
    "gen_ai.server.time_per_output_token",
)
TOKENS = Metric(
    "gen_ai_client_inference_tokens_total",
    "counter",
    "Tokens read and written by models.",
    ("gen_ai_token_type", "gen_ai_provider_name", "gen_ai_request_model"),
    otel="gen_ai.client.inference.tokens",
)
RUN_DURATION = Metric(
    "gen_ai_invoke_agent_duration_seconds",
    "histogram",
    "Duration of one agent run.",
    ("gen_ai_agent_name", "error_type"),
    RUN_SECONDS,
    "gen_ai.invoke_agent.duration",
)
RUN_INFERENCE_CALLS = Metric(
    "gen_ai_invoke_agent_inference_calls",
    "histogram",
    "Model calls in one agent run.",
    ("gen_ai_agent_name",),
    CALLS,
    "gen_ai.invoke_agent.inference_calls",
)
RUN_TOOL_CALLS = Metric(
    "gen_ai_invoke_agent_tool_calls",
    "histogram",
    "Tool calls in one agent run.",
    ("gen_ai_agent_name",),
    CALLS,
    "gen_ai.invoke_agent.tool_calls",
)
TOOL_DURATION = Metric(
    "gen_ai_execute_tool_duration_seconds",
    "histogram",
    "Duration of one tool call.",
    ("gen_ai_tool_name", "error_type"),
    TOOL_SECONDS,
    "gen_ai.execute_tool.duration",
)
RUNS = Metric("agent_loop_runs_total", "counter", "Runs ended, by how they ended.", ("outcome",))
RUNS_ACTIVE = Metric("agent_loop_runs_active", "gauge", "Runs in progress now.")
TASKS = Metric(
    "agent_loop_tasks_total",
    "counter",
    "Runs ended, by what they were worth to whoever asked: task success is `success` among all but `abandoned`.",
    ("result",),
)
TASK_RETRIES = Metric(
    "agent_loop_task_retries_total",
    "counter",
    "Runs that were asked what their session's last run was asked: the first answer did not do.",
)
FEEDBACK = Metric("agent_loop_feedback_total", "counter", "Thumbs that people gave to answers.", ("thumbs",))
COST = Metric(
    "agent_loop_cost_total",
    "counter",
    "Cost of ended runs by the price table, in its unit; divided by successful tasks it is the cost of a success.",
)
MODEL_SECONDS = Metric(
    "agent_loop_model_seconds_total", "counter", "Seconds that ended runs spent in model calls: their cost in time."
)
TOOL_REPAIRS = Metric(
    "agent_loop_tool_repairs_total",
    "counter",
    "Tool calls sent back to the model because their name or arguments were wrong.",
    ("reason",),
)
QUEUE_DEPTH = Metric("agent_loop_admission_queue_depth", "gauge", "Requests waiting for a place.")
QUEUE_LIMIT = Metric("agent_loop_admission_queue_limit", "gauge", "Places in the queue; the next one is refused.")
ADMITTED_ACTIVE = Metric("agent_loop_admission_active", "gauge", "Requests holding a place at the backend.")
ADMISSION_WAIT = Metric(
    "agent_loop_admission_wait_seconds",
    "histogram",
    "Time from arrival to admission.",
    buckets=WAIT_SECONDS,
)
ADMISSION_REJECTED = Metric(
    "agent_loop_admission_rejected_total", "counter", "Requests refused, by reason.", ("reason",)
)
UPSTREAM_ATTEMPTS = Metric(
    "agent_loop_upstream_attempts_total", "counter", "Requests to a backend, by how they ended.", ("outcome",)
)
CIRCUIT = Metric(
    "agent_loop_upstream_circuit_state",
    "gauge",
    "1 for the circuit breaker's current state, else 0.",
    ("state",),
    multiprocess="livemax",
)
FALLBACKS = Metric(
    "agent_loop_fallbacks_total",
    "counter",
    "Calls answered by another backend or model than the first choice.",
    ("from", "to", "reason"),
)
STREAMS_ACTIVE = Metric("agent_loop_streams_active", "gauge", "Event streams open to clients.")
STREAM_STALLS = Metric(
    "agent_loop_stream_stalls_total", "counter", "Upstream streams that went silent beyond the stall limit."
)
UPSTREAM_ABORTS = Metric(
    "agent_loop_upstream_aborts_total", "counter", "Upstream requests closed before their end.", ("cause",)
)
CONTEXT_USED = Metric(
    "agent_loop_context_used_ratio",
    "histogram",
    "Share of the context window that a call's prompt and answer used.",
    ("gen_ai_request_model",),
    RATIO,
)
CONTEXT_TRUNCATIONS = Metric(
    "agent_loop_context_truncations_total",
    "counter",
    "Calls that did not fit the context window: refused prompts and answers cut at its end.",
    ("gen_ai_request_model", "kind"),
)
OLLAMA_UP = Metric("ollama_up", "gauge", "1 when Ollama answered the last look, else 0.", multiprocess="livemostrecent")
OLLAMA_LOADED = Metric(
    "ollama_model_loaded", "gauge", "1 while a model is in memory.", ("model",), multiprocess="livemostrecent"
)
OLLAMA_VRAM = Metric(
    "ollama_model_vram_bytes",
    "gauge",
    "GPU memory of a loaded model.",
    ("model",),
    multiprocess="livemostrecent",
)
OLLAMA_GPU_RATIO = Metric(
    "ollama_model_gpu_ratio",
    "gauge",
    "Share of a loaded model that is in GPU memory; below 1 part of it runs on the CPU.",
    ("model",),
    multiprocess="livemostrecent",
)
OLLAMA_LOAD = Metric(
    "ollama_load_duration_seconds",
    "histogram",
    "Time a call spent waiting for its model to load, from Ollama's reply.",
    ("model",),
    UPSTREAM_SECONDS,
)
OLLAMA_PROMPT_EVAL = Metric(
    "ollama_prompt_eval_duration_seconds",
    "histogram",
    "Time a call spent on its prompt, from Ollama's reply.",
    ("model",),
    UPSTREAM_SECONDS,
)
OLLAMA_EVAL = Metric(
    "ollama_eval_duration_seconds",
    "histogram",
    "Time a call spent generating, from Ollama's reply.",
    ("model",),
    UPSTREAM_SECONDS,
)
OLLAMA_QUEUE = Metric(
    "ollama_queue_duration_seconds",
    "histogram",
    "Time a call waited for a slot inside Ollama: total less load, prompt and generation.",
    ("model",),
    UPSTREAM_SECONDS,
)
BUILD = Metric(
    "agent_loop_build_info",
    "gauge",
    "Always 1; says what is running.",
    ("version", "revision", "model_digest", "variant"),
    multiprocess="livemax",
)
LOOP_LAG = Metric(
    "agent_loop_event_loop_lag_seconds",
    "gauge",
    "How late the event loop woke up at its last check.",
    multiprocess="livemax",
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of the service's metrics, in the order of this file."""

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def series() -> frozenset[str]:
    """Every series name a scrape can hold, with the `_bucket`, `_sum` and `_count` of histograms."""
    names: set[str] = set()
    for metric in METRICS:
        if metric.kind == "histogram":
            names.update(metric.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        else:
            names.add(metric.name)
    return frozenset(names)


# Span names and attributes of traces (OpenTelemetry `gen_ai` spans).
SPAN_REQUEST = "request"
SPAN_RUN = "invoke_agent"
SPAN_CHAT = "chat"
SPAN_TOOL = "execute_tool"
ATTR_OPERATION = "gen_ai.operation.name"
ATTR_PROVIDER = "gen_ai.provider.name"
ATTR_MODEL = "gen_ai.request.model"
ATTR_AGENT = "gen_ai.agent.name"
ATTR_CONVERSATION = "gen_ai.conversation.id"
ATTR_TOOL = "gen_ai.tool.name"
ATTR_TOOL_CALL = "gen_ai.tool.call.id"
ATTR_INPUT_TOKENS = "gen_ai.usage.input_tokens"
ATTR_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ATTR_FINISH = "gen_ai.response.finish_reasons"
ATTR_ERROR = "error.type"
ATTR_RUN = "agent_loop.run.id"
ATTR_OUTCOME = "agent_loop.outcome"
ATTR_HTTP_METHOD = "http.request.method"
ATTR_HTTP_ROUTE = "http.route"
ATTR_HTTP_STATUS = "http.response.status_code"
ATTR_INPUT = "gen_ai.input.messages"
ATTR_OUTPUT = "gen_ai.output.messages"
