"""What is kept, told and counted of a run that has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import structlog

from service.runs import features
from service.runs.ending import Ending
from service.runs.spec import RunSpec, message_to_json
from service.runs.state import RunState
from service.store.runs import RunRow
from service.telemetry import Metrics, names
from service.telemetry.names import Outcome, TaskResult

log = structlog.get_logger("service.runs")

_CUT = (Outcome.MAX_STEPS, Outcome.MAX_TOOL_CALLS, Outcome.MAX_TIME, Outcome.MAX_TOKENS, Outcome.MAX_COST)
_LEFT = (Outcome.CANCELLED, Outcome.CLIENT_GONE)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """An ended run's `summary` for its row, `ended` for its last event, and `features` for the drift job."""

    summary: dict[str, Any]
    ended: dict[str, Any]
    features: dict[str, Any]
    result: TaskResult


def conclude(row: RunRow, spec: RunSpec, state: RunState, ending: Ending, cost: float, *, retry: bool) -> Conclusion:
    """Put together what a run came to; `retry`: the person had asked the same just before."""
    summary: dict[str, Any] = {
        "output": state.output,
        "finish_reason": ending.finish_reason,
        "error": ending.error,
        "steps": state.steps,
        "tool_calls": state.tool_calls,
        "usage": {
            "prompt_tokens": state.prompt_tokens,
            "completion_tokens": state.completion_tokens,
            "total_tokens": state.tokens,
        },
        "cost": cost,
        "seconds": round(state.seconds, 6),
        "ttft": state.ttft,
        "protocol": state.protocol,
        "client_tool_calls": [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in state.pending.values()
        ]
        if ending.finish_reason == "tool_calls"
        else [],
    }
    feature_row = features.row(
        spec,
        state,
        outcome=str(ending.outcome),
        variant=row.variant.get("name", ""),
        digest=row.variant.get("model_digest", ""),
        user_retry=retry,
    )
    return Conclusion(
        {**summary, "messages": [message_to_json(each) for each in state.messages]},
        {"outcome": str(ending.outcome), **summary},
        feature_row,
        result_of(ending, feature_row, wants_json=spec.format is not None, answered=bool(state.output.strip())),
    )


def result_of(ending: Ending, feature_row: dict[str, Any], *, wants_json: bool, answered: bool) -> TaskResult:
    """Whether the person got what the run was for, as far as a machine can tell."""
    if ending.outcome in _LEFT:
        return TaskResult.ABANDONED
    if ending.outcome in _CUT:
        return TaskResult.PARTIAL
    if ending.outcome is not Outcome.COMPLETED:
        return TaskResult.FAILED
    if ending.finish_reason == "tool_calls":  # the next move is the caller's
        return TaskResult.SUCCESS
    if ending.finish_reason == "length":
        return TaskResult.PARTIAL
    if not answered or (wants_json and feature_row["json_valid"] != 1):
        return TaskResult.FAILED
    return TaskResult.REFUSED if feature_row["refusal"] else TaskResult.SUCCESS


def tell(metrics: Metrics, row: RunRow, spec: RunSpec, state: RunState, ending: Ending, conclusion: Conclusion) -> None:
    """Count a run that was stored as ended, and log it; called once a run, by the process that ended it."""
    agent = {"gen_ai_agent_name": spec.agent or "none"}
    failed = ending.outcome if ending.error else ""
    metrics.inc(names.RUNS, outcome=ending.outcome)
    metrics.observe(names.RUN_DURATION, time.time() - row.created_at, run=row.id, error_type=failed, **agent)
    metrics.observe(names.RUN_INFERENCE_CALLS, state.steps, **agent)
    metrics.observe(names.RUN_TOOL_CALLS, state.tool_calls, **agent)
    metrics.inc(names.TASKS, result=conclusion.result)
    metrics.inc(names.COST, conclusion.summary["cost"])
    metrics.inc(names.MODEL_SECONDS, state.model_seconds)
    if conclusion.features["user_retry"]:
        metrics.inc(names.TASK_RETRIES)
    log.info(
        "run.ended",
        run_id=row.id,
        session_id=row.session_id,
        outcome=str(ending.outcome),
        result=str(conclusion.result),
        model=spec.model,
        variant=row.variant.get("name", ""),
        model_digest=row.variant.get("model_digest", ""),
        steps=state.steps,
        tool_calls=state.tool_calls,
        prompt_tokens=state.prompt_tokens,
        completion_tokens=state.completion_tokens,
        seconds=round(state.seconds, 3),
    )
