"""A backend with no model: it plays turns from a script. For tests, demos and load, with real timing and failures.

    script = Script.of(Turn(calls=(Call("calculator", {"expression": "6*7"}),)), Turn(text="It is ${tool}."))
    backend = ScriptedBackend(script)

A script is a list of rules. The first rule whose pattern is found in the last user message is played; its n-th turn
answers the n-th model call after that message. So the choice depends on the conversation alone: a run that resumes
in another process goes on where it was. Texts and arguments may hold `${user}`, `${tool}` (the last tool result)
and the pattern's named groups. With no rule that fits it says what it was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from string import Template
from typing import Any, cast

import anyio

from service.backends.base import (
    BackendError,
    ChatRequest,
    Delta,
    Embeddings,
    Finish,
    FinishReason,
    Message,
    ModelInfo,
    ModelNotFound,
    ToolCall,
    Usage,
)
from service.backends.scripts import DEMO, FAILURES, Call, Script, Turn


class ScriptedBackend:
    """Plays a script. `requests` and `open_calls` let a test see what came and what is still running."""

    name = "scripted"
    aborts_prompt = True

    def __init__(self, script: Script = DEMO, *, parallelism: int = 8) -> None:
        self.script = script
        self.parallelism = parallelism
        self.requests: list[ChatRequest] = []
        self.open_calls = 0
        self.aborted = 0
        self._failed: dict[int, int] = {}

    async def models(self) -> Sequence[ModelInfo]:
        """The script's models."""
        return [
            ModelInfo(name, _digest(name), self.script.context, self.script.native_tools, embeddings=True)
            for name in self.script.models
        ]

    async def ready(self, model: str) -> None:
        """Raises ModelNotFound for a model the script does not name."""
        if model not in self.script.models:
            raise ModelNotFound(f"The model does not exist: {model}. The script has: {', '.join(self.script.models)}.")

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Play one turn."""
        self.requests.append(request)
        await self.ready(request.model)
        turn, values = self._choose(request)
        failure = self._failure(turn)
        self.open_calls += 1
        finished = False
        try:
            await anyio.sleep(turn.delay)
            if failure and turn.fail_after == 0:
                raise failure
            sent = 0
            for delta in _pieces(turn, values, request):
                if sent:
                    await anyio.sleep(turn.pace)
                yield delta
                sent += 1
                if failure and sent >= turn.fail_after:
                    raise failure
            limit = request.sampling.max_tokens
            usage = Usage(_tokens(request.messages), sent, 0.0, turn.delay, turn.pace * sent, self.script.context)
            cut = limit is not None and sent >= limit and not turn.calls
            reason: FinishReason = turn.finish or (
                "length" if cut else "tool_calls" if turn.calls and request.tools else "stop"
            )
            finished = True
            yield Delta(finish=Finish(reason, usage))
        except GeneratorExit:
            self.aborted += not finished
            raise
        except anyio.get_cancelled_exc_class():
            self.aborted += 1
            raise
        finally:
            self.open_calls -= 1

    async def embed(self, model: str, inputs: Sequence[str]) -> Embeddings:
        """Vectors of length 32 made from each text's hash: equal texts have equal vectors."""
        await self.ready(model)
        vectors: list[list[float]] = []
        for text in inputs:
            raw = hashlib.sha512(text.encode()).digest()
            values = [value / 32768 - 1 for value in struct.unpack(">32H", raw)]
            length = sum(value * value for value in values) ** 0.5
            vectors.append([value / length for value in values])
        return Embeddings(vectors, sum(len(text.split()) + 1 for text in inputs))

    async def aclose(self) -> None:
        """Nothing to close."""

    def _choose(self, request: ChatRequest) -> tuple[Turn, dict[str, str]]:
        asked = [i for i, message in enumerate(request.messages) if message.role == "user"]
        last = asked[-1] if asked else -1
        user = request.messages[last].content if asked else ""
        since = request.messages[last + 1 :]
        step = sum(message.role == "assistant" for message in since)
        results = [message.content for message in since if message.role == "tool"]
        values = {"user": user, "tool": results[-1] if results else ""}
        for rule in self.script.rules:
            found = re.search(rule.when, user, re.IGNORECASE)
            if found:
                groups = {key: (value or "").strip() for key, value in found.groupdict().items()}
                return rule.turns[min(step, len(rule.turns) - 1)], {**values, **groups}
        return Turn(text="You said: ${user}", pace=0.01), values

    def _failure(self, turn: Turn) -> BackendError | None:
        if turn.fail is None:
            return None
        count = self._failed.get(id(turn), 0)
        if turn.fail_times is not None and count >= turn.fail_times:
            return None
        self._failed[id(turn)] = count + 1
        before = turn.fail_after == 0
        return FAILURES[turn.fail](f"The script says so: {turn.fail}.", before_first_byte=before)


def _pieces(turn: Turn, values: Mapping[str, str], request: ChatRequest) -> list[Delta]:
    """The reply's chunks: thinking, the words of the text, then the calls in one."""
    pieces = [Delta(thinking=word) for word in _words(_fill(turn.thinking, values))]
    text = _fill(turn.text, values)
    if request.format is not None and not _is_json(text):
        text = json.dumps({"answer": text} if request.format == "json" else example(request.format, text))
    words = _words(text)
    limit = request.sampling.max_tokens
    pieces += [Delta(text=word) for word in words[: limit if limit else len(words)]]
    if turn.calls:
        calls = tuple(
            ToolCall(
                _call_id(request, index), call.name, call.raw if call.raw is not None else _arguments(call, values)
            )
            for index, call in enumerate(turn.calls)
        )
        pieces.append(Delta(tool_calls=calls))
    return pieces


def example(schema: Any, text: str = "") -> Any:
    """The smallest value that fits a simple JSON schema; strings become `text`."""
    if not isinstance(schema, Mapping):
        return text
    rules = cast("Mapping[str, Any]", schema)
    if "const" in rules:
        return rules["const"]
    if rules.get("enum"):
        return rules["enum"][0]
    for key in ("anyOf", "oneOf"):
        if rules.get(key):
            return example(rules[key][0], text)
    kind = rules.get("type", "object" if "properties" in rules else "string")
    if kind == "object":
        properties: Mapping[str, Any] = rules.get("properties", {})
        return {name: example(properties.get(name), text) for name in rules.get("required", properties)}
    if kind == "array":
        return [example(rules.get("items"), text)] * int(rules.get("minItems", 0))
    if kind in ("integer", "number"):
        return rules.get("minimum", 0)
    return {"boolean": False, "null": None}.get(kind, text)


def _fill(text: str, values: Mapping[str, str]) -> str:
    return Template(text).safe_substitute(values)


def _arguments(call: Call, values: Mapping[str, str]) -> str:
    return json.dumps(
        {key: _fill(value, values) if isinstance(value, str) else value for key, value in call.arguments.items()}
    )


def _call_id(request: ChatRequest, index: int) -> str:
    # The same conversation asks with the same id, also in another process.
    seed = json.dumps([(m.role, m.content, m.tool_call_id) for m in request.messages])
    return "call_" + hashlib.sha256(f"{seed}{index}".encode()).hexdigest()[:12]


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _tokens(messages: Sequence[Message]) -> int:
    return 1 + sum(len(message.content.split()) + 3 for message in messages)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _digest(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()
