"""From OpenAI's messages, tools and options to ours. Every refusal names the field. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from service.api.run_schemas import NAME, check_schema
from service.backends.base import Message, ToolCall, ToolSpec
from service.errors import InvalidRequest

_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,([A-Za-z0-9+/=\s]+)", re.IGNORECASE)
_NAME = re.compile(NAME)
MAX_TOOLS = 128


def refuse_unknown(fields: dict[str, Any] | None) -> None:
    """The real API refuses what it does not know, so a typo does not pass silently."""
    for name in fields or {}:
        raise InvalidRequest(
            f"Unrecognized request argument supplied: {name[:100]}.", code="unknown_parameter", param=name[:100]
        )


def chat_message(item: Any, place: str) -> Message:
    """A message of chat completions."""
    fields = _object(item, place)
    role = fields.get("role")
    role = {"developer": "system", "function": "tool"}.get(str(role), role)
    if role not in ("system", "user", "assistant", "tool"):
        raise _bad(f"{place}.role", f"{str(role)[:40]!r} is no role", "Use system, user, assistant or tool")
    text, images = content_of(fields.get("content"), f"{place}.content", optional=role == "assistant")
    if role == "assistant":
        calls = _calls(fields.get("tool_calls"), f"{place}.tool_calls")
        if fields.get("content") is None and not calls and not fields.get("refusal"):
            raise _bad(f"{place}.content", "missing", "Send content or tool_calls")
        return Message("assistant", text or _text(fields.get("refusal"), f"{place}.refusal"), calls)
    if role == "tool":
        call_id = fields.get("tool_call_id") or fields.get("name")
        if not isinstance(call_id, str):
            raise _bad(f"{place}.tool_call_id", "missing", "Send the id of the call that this answers")
        name = fields.get("name")
        return Message("tool", text, tool_call_id=call_id, name=name if isinstance(name, str) else None)
    return Message(cast("Any", role), text, images=images)


def content_of(value: Any, place: str, *, optional: bool = False) -> tuple[str, tuple[str, ...]]:
    """`(text, images)` of a string or a list of parts."""
    if isinstance(value, str):
        return value, ()
    if value is None and optional:
        return "", ()
    if not isinstance(value, list):
        raise _bad(place, "not text and not a list of parts", "Send a string")
    texts: list[str] = []
    images: list[str] = []
    for index, part in enumerate(cast("list[Any]", value)):
        where = f"{place}[{index}]"
        fields = _object(part, where)
        kind = fields.get("type")
        if kind in ("text", "input_text", "output_text"):
            texts.append(_text(fields.get("text"), f"{where}.text"))
        elif kind == "refusal":
            texts.append(_text(fields.get("refusal"), f"{where}.refusal"))
        elif kind in ("image_url", "input_image"):
            images.append(_image(fields.get("image_url"), f"{where}.image_url"))
        else:
            raise _bad(f"{where}.type", f"{str(kind)[:40]!r} is not supported", "Send text or images")
    return "\n".join(texts), tuple(images)


def name_results(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Tool messages with the name of the call that they answer, which the wire leaves out."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return tuple(
        Message("tool", m.content, tool_call_id=m.tool_call_id, name=m.name or names.get(m.tool_call_id or ""))
        if m.role == "tool"
        else m
        for m in messages
    )


def tools_of(value: Any, place: str = "tools", *, flat: bool = False) -> tuple[ToolSpec, ...]:
    """Function tools; `flat` is how Responses writes them (no `function` object inside)."""
    if value is None:
        return ()
    items = _list(value, place)
    if len(items) > MAX_TOOLS:
        raise _bad(place, f"{len(items)} tools", f"Send at most {MAX_TOOLS}")
    found: list[ToolSpec] = []
    for index, item in enumerate(items):
        where = f"{place}[{index}]"
        fields = _object(item, where)
        if fields.get("type") != "function":
            kind = str(fields.get("type"))[:40]
            raise _bad(f"{where}.type", f"{kind!r} is not supported", "Only function tools are")
        if not flat:
            where += ".function"
            fields = _object(fields.get("function"), where)
        name = fields.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _bad(f"{where}.name", f"{str(name)[:64]!r} is no name", "Use 1 to 64 of a-z, A-Z, 0-9, _ and -")
        parameters = fields.get("parameters")
        if parameters is None or parameters == {}:
            parameters = {"type": "object", "properties": {}}
        found.append(
            ToolSpec(
                name,
                _text(fields.get("description") or "", f"{where}.description"),
                _schema(parameters, f"{where}.parameters"),
            )
        )
    names = [tool.name for tool in found]
    if len(set(names)) != len(names):
        raise _bad(place, "two tools have one name", "Rename one")
    return tuple(found)


def choice_of(value: Any, known: set[str]) -> str:
    """`auto`, `none`, `required` or a tool's name."""
    if value is None:
        return "auto"
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        inner = fields.get("function")
        name = fields.get("name") or (cast("dict[str, Any]", inner).get("name") if isinstance(inner, dict) else None)
        if fields.get("type") == "allowed_tools":
            return "required" if fields.get("mode") == "required" else "auto"
        if fields.get("type") != "function" or not isinstance(name, str):
            raise _bad("tool_choice", "not supported", "Name a function")
        value = name
    elif value not in ("auto", "none", "required"):
        raise _bad("tool_choice", f"{str(value)[:40]!r} is no choice", "Use auto, none, required or a function")
    if value in ("auto", "none"):
        return str(value)
    if not known or (value != "required" and value not in known):
        raise _bad("tool_choice", f"{str(value)[:64]!r} is not among the tools", "Offer it in tools")
    return str(value)


def format_of(value: Any, place: str) -> Any:
    """None, "json" or a JSON schema, from `response_format` or `text.format`."""
    if value is None:
        return None
    fields = _object(value, place)
    kind = fields.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind == "json_schema":
        inner = _object(fields["json_schema"], f"{place}.json_schema") if "json_schema" in fields else fields
        return _schema(inner.get("schema"), f"{place}.schema")
    raise _bad(f"{place}.type", f"{str(kind)[:40]!r} is not supported", "Use text, json_object or json_schema")


def stops_of(value: Any) -> tuple[str, ...]:
    """Stop sequences: one or up to four."""
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else _list(value, "stop")
    if len(items) > 4 or not all(isinstance(item, str) and item for item in items):
        raise _bad("stop", "not 1 to 4 texts", "Send a string or a list of at most 4")
    return tuple(cast("list[str]", items))


def _calls(value: Any, place: str) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    calls: list[ToolCall] = []
    for index, item in enumerate(_list(value, place)):
        where = f"{place}[{index}]"
        fields = _object(item, where)
        function = _object(fields.get("function"), f"{where}.function")
        calls.append(
            ToolCall(
                _text(fields.get("id"), f"{where}.id"),
                _text(function.get("name"), f"{where}.function.name"),
                _text(function.get("arguments"), f"{where}.function.arguments"),
            )
        )
    return tuple(calls)


def _image(value: Any, place: str) -> str:
    url = cast("dict[str, Any]", value).get("url") if isinstance(value, dict) else value
    found = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    if found is None:
        raise _bad(place, "not a data: address with base64", "Send the image itself; addresses are not fetched")
    return re.sub(r"\s", "", found.group(1))


def _schema(value: Any, place: str) -> dict[str, Any]:
    fields = _object(value, place)
    try:
        return check_schema(fields)
    except ValueError as error:
        raise InvalidRequest(f"Invalid value at '{place}': {error}.", code="invalid_value", param=place) from None


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(place, "not an object", "Send a JSON object")
    return cast("dict[str, Any]", value)


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(place, "not a list", "Send a JSON array")
    return cast("list[Any]", value)


def _text(value: Any, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _bad(place, "not text", "Send a string")
    return value


def _bad(place: str, problem: str, advice: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value at '{place}': {problem}. {advice}.", code="invalid_value", param=place)


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))
