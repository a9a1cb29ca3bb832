"""Response objects and their output items, from a run. Pure.

The optional fields that clients treat as required are never null (`presence_penalty` … `tools`): strict clients
refuse a response in which they are.
"""

from __future__ import annotations

from typing import Any

from service.api.openai.convert import compact
from service.backends.base import Message, ToolCall
from service.runs.spec import RunSpec, message_from_json
from service.store.runs import RunRow

SERVER_LABEL = "agent-loop"
"""Server tools show as `mcp_call` items of this server: the wire's only item for a function that the server ran."""

_NEVER_NULL: dict[str, Any] = {
    "background": False,
    "frequency_penalty": 0.0,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}
_MAY_BE_NULL = (
    *("instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "prompt_cache_key"),
    *("reasoning", "safety_identifier", "user"),
)


def response_id(run_id: str) -> str:
    """`resp_…` of `run_…`."""
    return "resp_" + run_id.removeprefix("run_")


def run_id_of(response: str) -> str:
    """`run_…` of `resp_…`."""
    return "run_" + response.removeprefix("resp_")


def response_object(
    spec: RunSpec, run_id: str, created_at: float, *, status: str, output: list[dict[str, Any]]
) -> dict[str, Any]:
    """A response; what is known only at its end is null."""
    echo = spec.echo
    return {
        "id": response_id(run_id),
        "object": "response",
        "created_at": created_at,
        "status": status,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "metadata": spec.metadata,
        "model": echo.get("model", spec.model),
        "output": output,
        "usage": None,
        **{name: echo.get(name) for name in _MAY_BE_NULL},
        **{name: echo[name] if echo.get(name) is not None else value for name, value in _NEVER_NULL.items()},
    }


def ended_response(
    spec: RunSpec,
    run_id: str,
    created_at: float,
    ended_at: float,
    outcome: str,
    summary: dict[str, Any],
    output: list[dict[str, Any]],
) -> dict[str, Any]:
    """The response of an ended run; `summary` is that of `run.ended`."""
    status, details = _status(outcome, summary)
    usage = summary["usage"]
    response = response_object(spec, run_id, created_at, status=status, output=output)
    response["incomplete_details"] = details
    response["completed_at"] = ended_at if status == "completed" else None
    response["usage"] = {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
    if status == "failed":
        error = summary.get("error") or {"message": "The run failed."}
        response["error"] = {"code": "server_error", "message": error["message"]}
    return response


def stored_response(spec: RunSpec, row: RunRow) -> dict[str, Any]:
    """The response of a run as the store has it."""
    if not row.ended or row.summary is None:
        return response_object(spec, row.id, row.created_at, status="in_progress", output=[])
    messages = [message_from_json(each) for each in row.summary.get("messages", [])]
    output = output_items(row.id, messages, {tool.name for tool in spec.client_tools})
    partial = row.summary.get("output", "")
    if partial and not any(m.role == "assistant" and m.content == partial for m in messages):
        output.append(message_item(row.id, row.summary["steps"] + 1, partial, "incomplete"))
    return ended_response(
        spec, row.id, row.created_at, row.ended_at or row.created_at, row.outcome or "", row.summary, output
    )


def _status(outcome: str, summary: dict[str, Any]) -> tuple[str, dict[str, str] | None]:
    if outcome == "completed":
        if summary.get("finish_reason") == "length":
            return "incomplete", {"reason": "max_output_tokens"}
        return "completed", None
    if outcome.startswith("max_"):
        reason = "max_output_tokens" if outcome == "max_tokens" else outcome
        return "incomplete", {"reason": reason}
    if outcome in ("cancelled", "client_gone"):
        return "cancelled", None
    return "failed", None


def output_items(run_id: str, messages: list[Message], mine: set[str]) -> list[dict[str, Any]]:
    """Output items of a run's messages; `mine` are the names of the client's tools."""
    results = {message.tool_call_id: message.content for message in messages if message.role == "tool"}
    items: list[dict[str, Any]] = []
    step = 0
    for message in messages:
        if message.role != "assistant":
            continue
        step += 1
        if message.thinking:
            items.append(reasoning_item(run_id, step, message.thinking))
        if message.content:
            items.append(message_item(run_id, step, message.content))
        for call in message.tool_calls:
            if call.name in mine:
                items.append(function_item(call))
            else:
                items.append(server_item(call, results.get(call.id)))
    return items


def message_item(run_id: str, step: int, text: str | None, status: str = "completed") -> dict[str, Any]:
    """A message of the assistant; `text` None: begun, without content."""
    content = [] if text is None else [text_part(text)]
    return {
        "id": f"msg_{run_id.removeprefix('run_')}_{step}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def text_part(text: str) -> dict[str, Any]:
    """Text of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def reasoning_item(run_id: str, step: int, text: str | None, status: str = "completed") -> dict[str, Any]:
    """What the model thought."""
    content = [] if text is None else [{"type": "reasoning_text", "text": text}]
    return {
        "id": f"rs_{run_id.removeprefix('run_')}_{step}",
        "type": "reasoning",
        "summary": [],
        "content": content,
        "status": status,
    }


def function_item(call: ToolCall, status: str = "completed") -> dict[str, Any]:
    """A call of a tool of the client's."""
    return {
        "id": f"fc_{call.id}",
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments if status == "completed" else "",
        "status": status,
    }


def server_item(call: ToolCall, output: str | None, status: str | None = None) -> dict[str, Any]:
    """A call of a server tool, with its result once there is one."""
    return {
        "id": f"mcp_{call.id}",
        "type": "mcp_call",
        "server_label": SERVER_LABEL,
        "name": call.name,
        "arguments": call.arguments,
        "output": output,
        "error": None,
        "approval_request_id": None,
        "status": status or ("completed" if output is not None else "incomplete"),
    }


def sse(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    """One event of a response stream."""
    data = compact({"type": kind, "sequence_number": number, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()
