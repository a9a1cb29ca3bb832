"""The values that labels may have, where there is a list of them."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a run ended: exactly one of these per accepted run.

    `max_tool_calls`, `max_cost` and `interrupted` extend the list of the field notes: a tool-call limit, a
    cost budget, and a run ended by shutdown or crash had no value there.
    """

    COMPLETED = "completed"
    MAX_STEPS = "max_steps"
    MAX_TOOL_CALLS = "max_tool_calls"
    MAX_TIME = "max_time"
    MAX_TOKENS = "max_tokens"
    MAX_COST = "max_cost"
    CANCELLED = "cancelled"
    CLIENT_GONE = "client_gone"
    INTERRUPTED = "interrupted"
    TOOL_ERROR = "tool_error"
    MODEL_ERROR = "model_error"


class RejectReason(StrEnum):
    """Why admission refused a request (`agent_loop_admission_rejected_total{reason}`)."""

    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    RATE = "rate"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    DRAINING = "draining"


class Attempt(StrEnum):
    """How one upstream request ended (`agent_loop_upstream_attempts_total{outcome}`)."""

    OK = "ok"
    CONNECT = "connect"
    BUSY = "busy"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    SERVER_ERROR = "server_error"
    BROKEN_STREAM = "broken_stream"
    NO_FINISH = "no_finish"
    ABORTED = "aborted"
    CIRCUIT_OPEN = "circuit_open"


class AbortCause(StrEnum):
    """Why the service closed a running upstream request (`agent_loop_upstream_aborts_total{cause}`)."""

    CLIENT_GONE = "client_gone"
    CANCELLED = "cancelled"
    MAX_TIME = "max_time"
    SHUTDOWN = "shutdown"
    OTHER = "other"


class CircuitState(StrEnum):
    """States of the circuit breaker (`agent_loop_upstream_circuit_state{state}` is 1 for the current one)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class TokenType(StrEnum):
    """Values of `gen_ai_token_type`."""

    INPUT = "input"
    OUTPUT = "output"


class TaskResult(StrEnum):
    """What a run was worth to whoever asked (`agent_loop_tasks_total{result}`), as far as a machine can tell.

    `success` is an answer (or calls for the caller's tools) that is whole, no refusal, and of the schema if one was
    asked for; `partial` was cut by a limit; `failed` has no usable answer; `abandoned` was not waited for.
    """

    SUCCESS = "success"
    PARTIAL = "partial"
    REFUSED = "refused"
    FAILED = "failed"
    ABANDONED = "abandoned"


class Thumbs(StrEnum):
    """What people said of an answer (`agent_loop_feedback_total{thumbs}`)."""

    UP = "up"
    DOWN = "down"
