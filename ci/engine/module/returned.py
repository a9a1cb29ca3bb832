"""What a function gave, against what it says it gives: a module in Python may return anything.

As a Dagger engine reads it: text that is a number or a truth value passes for one, a fraction does not pass for a whole
number, and nothing passes for nothing but what is optional.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container
from typing import Any

from .errors import FunctionFailed
from .types import BOOLEAN, FLOAT, INTEGER, LIST, VOID, Function, TypeRef

_TRUTH = {word: truth for truth in (True, False) for word in (str(truth), str(truth).lower(), str(truth).upper())}
_NAMES = {"STRING": "a text", INTEGER: "a whole number", FLOAT: "a number", BOOLEAN: "true or false", LIST: "a list"}
_SHOWN = 60


def returned(value: Any, function: Function, own: Container[str]) -> Any:
    """The value as the declared type has it. `own` names the module's object types, whose values are JSON objects.

    Raises FunctionFailed with the function, the value and the type.
    """
    return _converted(value, function.returns, function.name or "The constructor", own)


def _converted(value: Any, ref: TypeRef, where: str, own: Container[str]) -> Any:
    if ref.kind == VOID:
        return None
    if value is None and ref.optional:
        return None
    match ref.kind, value:
        case "LIST", list():
            assert ref.element is not None
            return [_converted(member, ref.element, f"{where}[{n}]", own) for n, member in enumerate(value)]
        case "OBJECT" | "INTERFACE", dict() | str() if isinstance(value, dict) == (ref.name in own):
            return value
        case "INTEGER" | "FLOAT" | "BOOLEAN", str() | float() | int():
            read = _read(ref.kind, value)
        case "STRING" | "SCALAR" | "ENUM", str():
            return value
        case _:
            read = None
    if read is None:
        wanted = _NAMES.get(ref.kind) or ref.name
        raise FunctionFailed(
            f"failed to convert return value: {where} gave {_shown(value)}, but says it gives {wanted}. "
            "Change what it returns or its annotation."
        )
    return read


def _read(kind: str, value: str | float | bool) -> int | float | bool | None:
    """A number or a truth value, also where it is written as text; None for anything else."""
    if kind == BOOLEAN or isinstance(value, bool):
        known = value if isinstance(value, bool) else _TRUTH.get(value) if isinstance(value, str) else None
        return known if kind == BOOLEAN else None
    try:
        if kind == FLOAT:
            return float(value)
        return int(value, 0) if isinstance(value, str) else int(value) if math.floor(value) == value else None
    except (ValueError, OverflowError):
        return None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
