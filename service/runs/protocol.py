"""Tools for a model that has none: its output is constrained to a JSON schema that is either a call or an answer.

Used where `ModelInfo.tools` is False (Gemma 3n on Ollama, our own exports), and for every model when the caller
demands a tool (`tool_choice`), which Ollama's wire cannot say. Pure functions and one small reader:

    {"tool": "calculator", "arguments": {"expression": "6*7"}}      becomes a ToolCall
    {"answer": "It is 42."}                                         streams as text while it is written
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from service.backends.base import ChatRequest, Message, ToolCall, ToolSpec

NATIVE = "native"
CONSTRAINED = "constrained"
NONE = "none"


def is_constrained(tools: Sequence[ToolSpec], choice: str, *, native: bool) -> bool:
    """Whether a turn with these tools is constrained. `choice`: auto, none, required, or a tool's name."""
    return bool(tools) and choice != "none" and (not native or choice != "auto")


def prepare(request: ChatRequest, tools: Sequence[ToolSpec], choice: str, *, native: bool) -> ChatRequest:
    """The request with the tools offered in the way that the model knows."""
    if not tools or choice == "none":
        return request
    if not is_constrained(tools, choice, native=native):
        return replace(request, tools=tuple(tools))
    must = choice != "auto"
    if must and choice != "required":
        tools = [tool for tool in tools if tool.name == choice]
    return replace(
        request,
        messages=conversation(request.messages, tools, must_call=must),
        format=schema(tools, must_call=must, answer=request.format),
    )


def schema(tools: Sequence[ToolSpec], *, must_call: bool = False, answer: Any = None) -> dict[str, Any]:
    """The schema of one turn. `answer` is the schema of the final answer (None: text)."""
    choices: list[dict[str, Any]] = [
        _object({"tool": {"const": tool.name, "type": "string"}, "arguments": dict(tool.parameters)}) for tool in tools
    ]
    if not must_call:
        choices.append(_object({"answer": answer if isinstance(answer, dict) else {"type": "string"}}))
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def instructions(tools: Sequence[ToolSpec], *, must_call: bool = False) -> str:
    """What the system prompt says of it."""
    lines = ["You can use these tools:"]
    for tool in tools:
        lines.append(f"- {tool.name}: {tool.description} Arguments: {json.dumps(dict(tool.parameters))}")
    lines.append("Reply with one JSON object and nothing else.")
    lines.append('To use a tool: {"tool": NAME, "arguments": {...}}. Its result comes as the next message.')
    if must_call:
        lines.append("You have to use a tool now.")
    else:
        lines.append('To answer: {"answer": "..."}. Answer as soon as you can.')
    return "\n".join(lines)


def conversation(messages: Sequence[Message], tools: Sequence[ToolSpec], *, must_call: bool) -> list[Message]:
    """The messages as such a model is shown them: calls as the JSON it wrote, results as messages of the user."""
    text = instructions(tools, must_call=must_call)
    shown: list[Message] = []
    for message in messages:
        if message.role == "assistant" and message.tool_calls:
            for call in message.tool_calls:
                written = json.dumps({"tool": call.name, "arguments": _loads(call.arguments)})
                shown.append(Message("assistant", written))
        elif message.role == "tool":
            shown.append(Message("user", f"Result of {message.name or 'the tool'}: {message.content}"))
        else:
            shown.append(message)
    if shown and shown[0].role == "system":
        shown[0] = replace(shown[0], content=f"{shown[0].content}\n\n{text}")
    else:
        shown.insert(0, Message("system", text))
    return shown


class TurnReader:
    """Reads one constrained turn while it streams: `feed` returns the answer's new text, `end` the rest."""

    _ANSWER = re.compile(r'\s*\{\s*"answer"\s*:\s*"')
    # Up to here the text is whole: no escape is cut, and no surrogate pair is split.
    _SAFE = re.compile(
        r'(?:[^"\\]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\[^u])*'
    )

    def __init__(self) -> None:
        self._text = ""
        self._at: int | None = None
        self._closed = False

    def feed(self, text: str) -> str:
        """Take more of the turn; returns what it adds to the answer."""
        self._text += text
        if self._at is None:
            found = self._ANSWER.match(self._text)
            if found is None:
                return ""
            self._at = found.end()
        if self._closed:
            return ""
        whole = self._SAFE.match(self._text, self._at)
        assert whole is not None  # it matches the empty text
        piece = whole.group()
        self._at += len(piece)
        self._closed = self._text[self._at : self._at + 1] == '"'
        try:
            return cast("str", json.loads(f'"{piece}"', strict=False))
        except ValueError:
            return piece

    def end(self, call_id: str) -> tuple[str, tuple[ToolCall, ...]]:
        """The remaining text of the answer, and the call if the turn is one. Text that is no JSON is the answer."""
        if self._at is not None:
            return "", ()
        value = _loads(self._text)
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            if "tool" in fields:
                arguments = json.dumps(fields.get("arguments", {}))
                return "", (ToolCall(call_id, str(fields["tool"]), arguments),)
            if "answer" in fields:
                answer = fields["answer"]
                return answer if isinstance(answer, str) else json.dumps(answer), ()
        return self._text, ()


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
