"""Golden prompts: what is asked, and what a good answer holds. Read from a JSON Lines file, checked line by line.

    {"id": "sum", "prompt": "What is 12 * 7?", "contains": ["84"]}
    {"id": "weather", "prompt": "Weather in Oslo?", "tools": [{…}], "calls": [{"name": "weather", "arguments": {…}}]}
    {"id": "chat", "prompt": "Hello!", "tools": [{…}], "calls": []}

`contains` (any case), `matches` (regular expression), `equals`, `schema` (the answer is JSON of it) and `calls` may be
combined. `calls: []` says that no tool must be called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from service.backends.base import JsonSchema, ToolSpec

FIELDS = frozenset({"id", "prompt", "system", "tools", "contains", "matches", "equals", "schema", "calls", "tags"})


class BadCases(Exception):
    """The file cannot be used; the text names the line."""


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A call that must be made; `arguments` are those that must be given like this (others may be added)."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One golden prompt. `calls` None: whether tools are called does not matter."""

    id: str
    prompt: str
    system: str = ""
    tools: tuple[ToolSpec, ...] = ()
    contains: tuple[str, ...] = ()
    matches: str | None = None
    equals: str | None = None
    schema: JsonSchema | None = None
    calls: tuple[WantedCall, ...] | None = None


def read(path: Path) -> list[Case]:
    """The cases of a file. Raises BadCases for the first line that is wrong, or if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCases(f"Cannot read the cases: {path}: {error}. Name a JSON Lines file.") from None
    cases: list[Case] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            case = parse(json.loads(line), f"line-{number}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise BadCases(f"Bad case: {detail}: {path}, line {number}. See docs/evals.md.") from None
        if any(case.id == other.id for other in cases):
            raise BadCases(f"Two cases have one id: {case.id!r}: {path}, line {number}. Rename one.")
        cases.append(case)
    if not cases:
        raise BadCases(f"No cases: {path} is empty. Write one JSON object a line.")
    return cases


def parse(data: Any, default_id: str) -> Case:
    """One case. Raises ValueError, TypeError or KeyError that says what is wrong."""
    if not isinstance(data, dict):
        raise ValueError("a case is a JSON object")
    fields = cast("Mapping[str, Any]", data)
    unknown = sorted(set(fields) - FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    if not isinstance(fields["prompt"], str) or not fields["prompt"]:
        raise ValueError("prompt is no text")
    tools = tuple(_tool(each) for each in fields.get("tools", ()))
    calls = fields.get("calls")
    case = Case(
        str(fields.get("id", default_id)),
        fields["prompt"],
        str(fields.get("system", "")),
        tools,
        _texts(fields.get("contains", ())),
        fields.get("matches"),
        fields.get("equals"),
        fields.get("schema"),
        None if calls is None else tuple(WantedCall(c["name"], c.get("arguments", {})) for c in calls),
    )
    if case.matches is not None:
        try:
            re.compile(case.matches)
        except re.error as error:
            raise ValueError(f"matches is no regular expression: {error}") from None
    if case.schema is not None:
        _check_schema(case.schema)
    known = {tool.name for tool in tools}
    for call in case.calls or ():
        if call.name not in known:
            raise ValueError(f"calls names a tool that is not in tools: {call.name!r}")
    if not (case.contains or case.matches or case.equals or case.schema or case.calls is not None):
        raise ValueError("nothing is expected; give contains, matches, equals, schema or calls")
    return case


def _tool(data: Mapping[str, Any]) -> ToolSpec:
    parameters = data.get("parameters", {"type": "object", "properties": {}})
    _check_schema(parameters)
    return ToolSpec(str(data["name"]), str(data.get("description", "")), parameters)


def _check_schema(schema: Any) -> None:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"no JSON schema: {error.message[:100]}") from None


def _texts(value: Any) -> tuple[str, ...]:
    texts: Sequence[Any] = (value,) if isinstance(value, str) else value
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("contains is no text or list of texts")
    return tuple(texts)
