"""How results are printed. Pure: a value in, text out.

Recorded rules (module-protocol, "What is printed"): a scalar stands as it is without a final newline, a list has
one member a line, null is `<nil>`, an object is `Type@digest`; with `-j` everything but objects is JSON with four
spaces of indent.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from ci.engine.module.calls import whole


@dataclass(frozen=True)
class Handle:
    """An object that is printed by type and digest rather than by value."""

    type: str
    digest: str

    @classmethod
    def of(cls, type_name: str, identity: Any) -> Handle:
        """A handle whose digest tells equal objects from different ones. The prefix is the one Dagger prints."""
        text = json.dumps(identity, sort_keys=True, default=str)
        return cls(type_name, "xxh3:" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest())

    def __str__(self) -> str:
        return f"{self.type}@{self.digest}"


def is_object(value: Any) -> bool:
    """Whether a result is an object or a list of objects, so that it has no text of its own."""
    return isinstance(value, Handle) or bool(
        isinstance(value, list) and value and all(isinstance(v, Handle) for v in value)
    )


def plain(value: Any) -> str:
    """A result as text, with a final newline only where Dagger prints one."""
    if isinstance(value, Handle):
        return f"{value}\n"
    if isinstance(value, list) and value and all(isinstance(v, Handle) for v in value):
        return "".join(f"- {v}\n" for v in value)
    return _text(value)


def _text(value: Any) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return go_float(value)
        case list():
            return "".join(f"{_text(v)}\n" for v in value)
        case dict():  # one field of each member
            return "".join(_text(v) for v in value.values())
        case _:
            return str(value)


def as_json(value: Any) -> str:
    """A result as JSON, the way `-j` prints it; objects stay handles."""
    if is_object(value):
        return plain(value)
    return json.dumps(whole(value), indent=4, ensure_ascii=False, sort_keys=True) + "\n"


def go_float(value: float) -> str:
    """A float as Go prints it: shortest digits, no point when whole, exponents from 1e21 on and below 1e-4."""
    if math.isinf(value) or math.isnan(value):
        return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    if value.is_integer() and abs(value) < 1e21:
        return f"{value:.0f}"
    return repr(value)
