"""What a run's event log says: a fold over its events, the same while it runs and when it resumes.

Events, in the order they can come (`data` in braces):

    run.created {agent, model, session_id, limits, …}
    run.started {protocol, attempt}              once for each process that worked on it
    step.started {step}                          a model call; its partial output of an earlier attempt is void
    thinking.delta, text.delta {step, text}
    step.completed {step, text, thinking, tool_calls, finish_reason, usage, seconds, model_seconds, ttft}
    tool.started {step, id, name, arguments, key}
    tool.completed {step, id, name, ok, content, seconds}
    run.ended {outcome, …}                       exactly one, the last
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from service.backends.base import Message, ToolCall


@dataclass(slots=True)
class RunState:
    """Where a run stands."""

    messages: list[Message] = field(default_factory=list[Message])
    """What the run added to the conversation: assistant and tool messages of completed steps."""
    steps: int = 0
    open_step: bool = False
    partial: list[str] = field(default_factory=list[str])
    """Text of the step in progress."""
    pending: dict[str, ToolCall] = field(default_factory=dict[str, ToolCall])
    """Calls of the last completed step without a result, by id, in order."""
    begun: set[str] = field(default_factory=set[str])
    """Ids of pending calls whose intent is in the log: they may have had their effect."""
    used_ids: set[str] = field(default_factory=set[str])
    tool_calls: int = 0
    tool_errors: int = 0
    failures: int = 0
    """Tool results in a row that were errors."""
    tools: list[str] = field(default_factory=list[str])
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Spent in model and tool calls, by a monotonic clock."""
    model_seconds: float = 0.0
    ttft: float | None = None
    finish_reason: str = ""
    protocol: str = ""

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def answered(self) -> bool:
        """Whether the last thing was a step that called no tool: what it said is the answer."""
        last = self.messages[-1] if self.messages and not self.open_step else None
        return last is not None and last.role == "assistant" and not last.tool_calls

    @property
    def output(self) -> str:
        """The text of the answer so far: that of the open step, else of the last completed one."""
        if self.open_step and self.partial:
            return "".join(self.partial)
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), "")

    def apply(self, kind: str, data: dict[str, Any]) -> None:
        """Take one event in."""
        change = getattr(self, "_" + kind.replace(".", "_"), None)
        if change is not None:
            change(data)

    def _run_started(self, data: dict[str, Any]) -> None:
        self.protocol = data["protocol"]

    def _step_started(self, _data: dict[str, Any]) -> None:
        self.open_step = True
        self.partial = []

    def _text_delta(self, data: dict[str, Any]) -> None:
        self.partial.append(data["text"])

    def _step_completed(self, data: dict[str, Any]) -> None:
        calls = tuple(ToolCall(each["id"], each["name"], each["arguments"]) for each in data["tool_calls"])
        self.messages.append(Message("assistant", data["text"], calls, thinking=data.get("thinking") or None))
        self.open_step = False
        self.partial = []
        self.steps += 1
        self.pending = {call.id: call for call in calls}
        self.used_ids.update(self.pending)
        self.begun = set()
        self.prompt_tokens += data["usage"]["prompt_tokens"]
        self.completion_tokens += data["usage"]["completion_tokens"]
        self.seconds += data["seconds"]
        self.model_seconds += data["model_seconds"]
        self.finish_reason = data["finish_reason"]
        if self.ttft is None:
            self.ttft = data.get("ttft")

    def _tool_started(self, data: dict[str, Any]) -> None:
        self.begun.add(data["id"])
        self.tool_calls += 1
        self.tools.append(data["name"])

    def _tool_completed(self, data: dict[str, Any]) -> None:
        self.pending.pop(data["id"], None)
        self.messages.append(
            Message("tool", data["content"], tool_call_id=data["id"], name=data["name"]),
        )
        self.seconds += data["seconds"]
        self.tool_errors += not data["ok"]
        self.failures = 0 if data["ok"] else self.failures + 1
