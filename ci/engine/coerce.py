"""Arguments of a query: checked, defaults filled in, ids turned into nodes.

A Dagger engine is lax where the standard is strict (`"80"` is an Int, a string is an enum member) and words
its refusals in its own way; both are kept. Source: cases `error-*` and `id-*` of the recorded answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import RequestError
from .graph import Hidden, Node
from .query import Number, Symbol
from .schema import Argument, FieldDef, Schema, base_name, is_list

Find = Callable[[str], Node | None]
"""From an id to its node; None where nobody knows it."""

HIDDEN = {("setSecret", "plaintext")}
CORE = "github.com/dagger/dagger"


class BadValue(Exception):
    """A value of the wrong kind, and what the engine says of it."""


def arguments(schema: Schema, field: FieldDef, given: Mapping[str, Any], find: Find, text: str) -> dict[str, Any]:
    """Values of every declared argument. Raises RequestError (status 200, no path) for a value that does not fit."""
    values: dict[str, Any] = {}
    for name, argument in field.args.items():
        if name not in given:
            values[name] = argument.default
            continue
        try:
            value = _value(schema, argument, given[name], find, field.name)
        except BadValue as bad:
            type_name = _engine_type(schema, argument, field.name)
            message = (
                f'query:\n{text}\n\nerror: parse selections: parse field "{field.name}": init arg "{name}" value '
                f"as {type_name} ({argument.type}) using {type_name}: {bad}"
            )
            raise RequestError([{"message": message}], 200) from None
        values[name] = Hidden(value) if (field.name, name) in HIDDEN else value
    return values


def _engine_type(schema: Schema, argument: Argument, field: str) -> str:
    """What the engine calls the type of an argument in its messages."""
    inner = base_name(argument.type)
    if is_list(argument.type):
        return "dagql.DynamicArrayInput"
    if re.fullmatch(r"load\w+FromID", field):
        return f"dagql.Scalar[{CORE}/dagql.AnyID]"
    if inner == "ID":
        name = f"dagql.ID[*{CORE}/core.{argument.object}]" if argument.object else "dagql.AnyID"
    elif inner in ("String", "Int", "Float", "Boolean"):
        name = f"dagql.{inner}"
    elif inner == "Platform":
        name = f"{CORE}/core.Platform"
    else:
        name = f"core.{inner}"
    if argument.type.endswith("!") or (argument.has_default and inner in ("String", "Int", "Float", "Boolean")):
        return name
    return f"dagql.Optional[{name}]" if inner in ("Platform",) else "dagql.DynamicOptional"


def _value(schema: Schema, argument: Argument, value: Any, find: Find, field: str) -> Any:
    if value is None:
        if not argument.type.endswith("!"):
            return argument.default
        if is_list(argument.type):
            raise BadValue("expected array, got <nil>")
        inner = base_name(argument.type)
        raise BadValue("cannot convert <nil> to ID" if inner == "ID" else f"cannot create {inner} from <nil>")
    if is_list(argument.type):
        if isinstance(value, str) and not isinstance(value, Symbol):
            try:
                value = json.loads(value)
            except ValueError:
                raise BadValue(
                    f'decode "{value}": invalid character {_first(value)} looking for beginning of value'
                ) from None
        if not isinstance(value, list):
            raise BadValue(f"expected array, got {_go(value)}")
        return [_scalar(schema, argument, item, find, field) for item in value]
    return _scalar(schema, argument, value, find, field)


def _first(text: str) -> str:
    return f"'{text[0]}'" if text else "''"


def _scalar(schema: Schema, argument: Argument, value: Any, find: Find, field: str) -> Any:
    inner = base_name(argument.type)
    match inner:
        case "String":
            if isinstance(value, str):
                return str(value)
            raise BadValue(f"cannot create String from {_go(value)}")
        case "Int":
            if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
                raise BadValue(f"cannot create Int from {str(value).lower()}")
            try:
                return int(value)
            except (TypeError, ValueError):
                raise BadValue(f"cannot create Int from {json.dumps(value)}") from None
        case "Float":
            try:
                return float(value)
            except (TypeError, ValueError):
                raise BadValue(f"cannot create Float from {json.dumps(value)}") from None
        case "Boolean":
            if isinstance(value, bool):
                return value
            if value in ("true", "false"):
                return value == "true"
            raise BadValue(f"cannot create Boolean from {_go(value)}")
        case "ID":
            return _node(argument, value, find, field)
        case "Platform":
            return _platform(value)
        case _:
            return _named(schema, inner, value, find, field)


def _named(schema: Schema, inner: str, value: Any, find: Find, field: str) -> Any:
    known = schema.types.get(inner)
    if known is not None and known.kind == "ENUM":
        if not isinstance(value, str) or value not in known.values:
            raise BadValue(f'invalid enum member "{value}" for core.{inner}')
        return str(value)
    if known is not None and known.kind == "INPUT_OBJECT":
        if not isinstance(value, Mapping):
            raise BadValue(f"expected map, got {_go(value)}")
        return {
            a.name: _value(schema, a, value[a.name], find, field) if a.name in value else a.default
            for a in known.inputs.values()
        }
    if inner.endswith("ID") and inner != "ID":  # load…FromID declares the type's own scalar
        return _node(Argument("id", "ID!", object=inner[:-2]), value, find, field)
    return value


def _node(argument: Argument, value: Any, find: Find, field: str) -> Node:
    if not isinstance(value, str):
        raise BadValue(f"cannot convert {_go(value)} to ID")
    load = re.fullmatch(r"load\w+FromID", field) is not None
    if value == "":
        if load:
            raise RequestError([{"message": "internal system error"}], 422)
        raise BadValue("cannot decode empty string as ID")
    node = find(value)
    if node is None:
        prefix = "invalid ID string: " if load or not argument.object else ""
        raise BadValue(f"{prefix}failed to unmarshal proto: proto: cannot parse invalid wire-format data")
    wanted = argument.object
    if wanted and not load and node.type != wanted and wanted not in ("Node", "Exportable", "Syncer"):
        raise BadValue(f'expected "{wanted}" ID, got {node.type}! ID')
    return node


def _platform(value: Any) -> str:
    if not isinstance(value, str):
        raise BadValue(f"cannot create Platform from {_go(value)}")
    pattern = re.compile(r"[A-Za-z0-9_-]+(?:\([A-Za-z0-9_.-]*\))?")
    parts = value.split("/")
    if len(parts) > 3:
        raise BadValue(f'"{value}": cannot parse platform specifier: invalid argument')
    for part in parts:
        if not pattern.fullmatch(part):
            raise BadValue(
                f'"{part}" is an invalid OS component of "{value}": OSAndVersion specifier component must match '
                '"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$": invalid argument'
            )
    return value if len(parts) > 1 else f"linux/{value}"


def _go(value: Any) -> str:
    """The Go type that the engine's decoder makes of a JSON value."""
    match value:
        case Number():
            return "json.Number"
        case bool():
            return "bool"
        case int():
            return "int64"
        case float():
            return "float64"
        case str():
            return "string"
        case list():
            return "[]interface {}"
        case _:
            return "map[string]interface {}"
