"""From the text of a flag to a typed value, with the spellings and complaints that Dagger's command line has.

Numbers, truth values and lists are read as Go's `strconv` and `encoding/csv` read them, because recorded calls
(and people's scripts) rely on it: `0x10` is an int, `1.5` is none, a comma inside CSV quotes separates nothing.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import Any, Protocol

from ci.engine.module.types import BOOLEAN, ENUM, FLOAT, INTEGER, LIST, OBJECT, SCALAR, STRING, EnumType, TypeRef

ADDRESSABLE = frozenset(
    {
        "Container", "Directory", "File", "Secret", "CacheVolume",
        "Service", "Socket", "GitRepository", "GitRef", "Module", "ModuleSource",
    }
)  # fmt: skip
"""Object types that a word on the command line can name: a path, an image, a `scheme://` address, a key. Those in the
second line are listed and refused when they are given, since they need Dagger's own engine."""


class Enums(Protocol):
    """Looks an enum up by its type's name."""

    def enum(self, name: str) -> EnumType: ...


@dataclass(frozen=True)
class Address:
    """A word that names an object, to be loaded when the call runs."""

    type: str
    text: str
    made: tuple[Any, ...] | None = None
    """Instead of what the word names: the chain of fields that makes the object."""


Value = Any
"""A JSON value, an Address, or a list of them."""


class BadValue(ValueError):
    """A text that is no value of its type; the message is what follows `for "--flag" flag: `."""


def supported(ref: TypeRef) -> bool:
    """Whether an argument of this type can be written on a command line."""
    if ref.kind == LIST:
        return ref.element is not None and ref.element.kind != LIST and supported(ref.element)
    if ref.kind == OBJECT:
        return ref.name in ADDRESSABLE
    return ref.kind in (STRING, INTEGER, FLOAT, BOOLEAN, SCALAR, ENUM)


def parse(text: str, ref: TypeRef, enums: Enums) -> Value:
    """Read one flag's text as a value of `ref`; a list's text gives a list. Raises BadValue."""
    if ref.kind != LIST:
        return _single(text, ref, enums)
    element = ref.element
    assert element is not None
    if element.kind in (INTEGER, FLOAT):
        words = text.split(",")
        if element.kind == INTEGER:
            return [_integer(word, "Atoi", 10) for word in words]
        return [_float(word) for word in words]
    return [_single(word, element, enums) for word in _csv(text)]


def _single(text: str, ref: TypeRef, enums: Enums) -> Value:
    match ref.kind:
        case "INTEGER":
            return _integer(text, "ParseInt", 0)
        case "FLOAT":
            return _float(text)
        case "BOOLEAN":
            return _boolean(text)
        case "ENUM":
            members = enums.enum(ref.name).members
            for member in members:
                if member.lower() == text.lower():
                    return member
            raise BadValue(f"value should be one of {','.join(members)}")
        case "OBJECT":
            return Address(ref.name, text)
        case _:
            return text


def _csv(text: str) -> list[str]:
    if not text:
        return []
    bare = re.match(r'(?:(?:"(?:[^"]|"")*"|[^",]*),)*[^",]+(")', text)
    if bare:
        raise BadValue(f'parse error on line 1, column {bare.end(1)}: bare " in non-quoted field')
    try:
        return next(csv.reader(io.StringIO(text), strict=True), [])
    except csv.Error:
        raise BadValue(
            f'parse error on line 1, column {len(text) + 1}: extraneous or missing " in quoted-field'
        ) from None


_GO_INTEGER = re.compile(r"[+-]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]*|[1-9][0-9_]*)")
_GO_FLOAT = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf(inity)?|nan)", re.IGNORECASE)


def _integer(text: str, function: str, base: int) -> int:
    fits = _GO_INTEGER.fullmatch(text) if base == 0 else re.fullmatch(r"[+-]?\d+", text)
    try:
        if not fits:
            raise ValueError
        octal = base == 0 and re.fullmatch(r"[+-]?0[0-7_]+", text)
        value = int(text, 8) if octal else int(text, base)
    except ValueError:
        raise BadValue(f"strconv.{function}: parsing {_quoted(text)}: invalid syntax") from None
    if not -(2**63) <= value < 2**63:
        raise BadValue(f"strconv.{function}: parsing {_quoted(text)}: value out of range")
    return value


def _float(text: str) -> float:
    if not _GO_FLOAT.fullmatch(text):
        raise BadValue(f"strconv.ParseFloat: parsing {_quoted(text)}: invalid syntax")
    return float(text)


_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def _boolean(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise BadValue(f"strconv.ParseBool: parsing {_quoted(text)}: invalid syntax")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
