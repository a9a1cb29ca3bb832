"""Regular expressions as ripgrep has them (Rust's `regex`), for Python's `re`.

Source: the syntax section of that library's documentation. What Python spells otherwise is rewritten, what only Python
has is refused as ripgrep refuses it, and what cannot be said in Python is refused with its name.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ", "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t-\r ",
    "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
CATEGORIES = {
    "letter": "L", "uppercaseletter": "Lu", "lowercaseletter": "Ll", "titlecaseletter": "Lt", "modifierletter": "Lm",
    "otherletter": "Lo", "casedletter": "LC", "l&": "LC", "mark": "M", "combiningmark": "M", "nonspacingmark": "Mn",
    "spacingmark": "Mc", "enclosingmark": "Me", "number": "N", "decimalnumber": "Nd", "digit": "Nd",
    "letternumber": "Nl", "othernumber": "No", "punctuation": "P", "punct": "P", "connectorpunctuation": "Pc",
    "dashpunctuation": "Pd", "openpunctuation": "Ps", "closepunctuation": "Pe", "initialpunctuation": "Pi",
    "finalpunctuation": "Pf", "otherpunctuation": "Po", "symbol": "S", "mathsymbol": "Sm", "currencysymbol": "Sc",
    "modifiersymbol": "Sk", "othersymbol": "So", "separator": "Z", "spaceseparator": "Zs", "lineseparator": "Zl",
    "paragraphseparator": "Zp", "other": "C", "control": "Cc", "cntrl": "Cc", "format": "Cf", "surrogate": "Cs",
    "privateuse": "Co", "unassigned": "Cn",
}  # fmt: skip
"""Long names of Unicode's general categories, without case, spaces, dashes and underlines."""
SHORT = {c.lower(): c for c in CATEGORIES.values()}
ESCAPES = re.compile(
    r"\\(?:[pP](?:\{(?P<property>[^}]*)\}|(?P<letter>[A-Za-z]))|[xuU]\{(?P<code>[0-9A-Fa-f]+)\}|(?P<one>.))", re.DOTALL
)
ONLY_PYTHON = {"(?=", "(?!", "(?<=", "(?<!"}
BOUNDS = {"<": r"\b(?=\w)", ">": r"\b(?<=\w)", "z": r"\Z"}


class BadExpression(Exception):
    """An expression that is none, or none that can be searched for here."""


def python(pattern: str) -> str:
    """The same expression in Python's words. Raises BadExpression; Python's own reading may find more wrong."""
    return "".join(_parts(pattern))


def _parts(pattern: str) -> Iterator[str]:
    at = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            text, at = _escape(pattern, at, inside=False)
            yield text
        elif pattern[at] == "[":
            text, at = _bracket(pattern, at)
            yield text
        elif pattern.startswith("(?", at):
            text, at = _group(pattern, at)
            yield text
        else:
            yield pattern[at]
            at += 1


def _group(pattern: str, at: int) -> tuple[str, int]:
    for start in ONLY_PYTHON:
        if pattern.startswith(start, at):
            raise BadExpression("look-around, including look-ahead and look-behind, is not supported")
    if pattern.startswith("(?<", at):
        return "(?P<", at + 3
    flags = re.compile(r"\(\?([a-zA-Z-]+)([:)])").match(pattern, at)
    if flags and (set(flags[1]) - set("ims-x") or (flags[2] == ")" and (at or "-" in flags[1]))):
        raise BadExpression(
            f"{flags[0]} is not known to this engine here; write (?{flags[1]}:...) around what it is for"
        )
    return "(?", at + 2


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """A class in brackets; a `]` that comes first is itself, and classes in it are united with it."""
    made, at = "[", at + 1
    if pattern.startswith("^", at):
        made, at = "[^", at + 1
    first = True
    while at < len(pattern):
        char = pattern[at]
        if char == "]" and not first:
            return f"{made}]", at + 1
        first = False
        named = re.compile(r"\[:(\^?)(\w+):\]").match(pattern, at)
        if pattern[at : at + 2] in ("&&", "--", "~~"):
            raise BadExpression(f"{pattern[at : at + 2]} in a class is not known to this engine; write the class out")
        if named and named[2] in POSIX:
            text = POSIX[named[2]]
            made += _rest(re.compile(f"[{text}]")) if named[1] else text
            at = named.end()
        elif char == "[":
            inner, at = _bracket(pattern, at)
            if inner.startswith("[^"):
                raise BadExpression("[^ in a class is not known to this engine; write the class out")
            made += inner[1:-1]
        elif char == "\\":
            text, at = _escape(pattern, at, inside=True)
            made += text
        else:
            made += re.escape(char) if char in "]&~|^" else char
            at += 1
    raise BadExpression("unclosed character class")


def _escape(pattern: str, at: int, *, inside: bool) -> tuple[str, int]:
    found = ESCAPES.match(pattern, at)
    if found is None:
        raise BadExpression("incomplete escape sequence, reached end of pattern prematurely")
    name = found["property"] if found["property"] is not None else found["letter"]
    if name is not None:
        ranges = _property(name, pattern[at + 1] == "P")
        return (ranges if inside else f"[{ranges}]"), found.end()
    if found["code"] is not None:
        code = int(found["code"], 16)
        if code > sys.maxunicode:
            raise BadExpression("hexadecimal literal is not a Unicode scalar value")
        return re.escape(chr(code)), found.end()
    one = found["one"]
    if one in "123456789":
        raise BadExpression("backreferences are not supported")
    if one == "Z":
        raise BadExpression("unrecognized escape sequence")
    return (found[0] if inside else BOUNDS.get(one, found[0])), found.end()


def _property(text: str, negated: bool) -> str:
    """The ranges of `\\p{text}`, for inside a class."""
    name = text
    if name.startswith("^"):
        name, negated = name[1:], not negated
    key, _, value = re.sub(r"[\s_-]", "", name).lower().rpartition("=")
    category = CATEGORIES.get(value) or SHORT.get(value)
    if key not in ("", "gc", "generalcategory") or (category is None and value not in ("any", "assigned", "ascii")):
        raise BadExpression(
            f"\\p{{{text}}} is not known to this engine, which knows general categories (\\p{{L}}, \\p{{Lu}}, ...). "
            "Write its characters as ranges, or search on a Dagger engine."
        )
    return _ranges(category or value, negated)


@lru_cache(maxsize=64)
def _ranges(category: str, negated: bool) -> str:
    def within(code: int) -> bool:
        if category in ("any", "ascii"):
            return category == "any" or code < 128
        found = unicodedata.category(chr(code))
        if category in ("LC", "assigned"):
            return found in ("Lu", "Ll", "Lt") if category == "LC" else found != "Cn"
        return found.startswith(category)

    return _spans([within(code) is not negated for code in range(sys.maxunicode + 1)])


@lru_cache(maxsize=64)
def _rest(taken: re.Pattern[str]) -> str:
    return _spans([taken.match(chr(code)) is None for code in range(sys.maxunicode + 1)])


def _spans(chosen: list[bool]) -> str:
    """Ranges of the characters that are chosen; none at all is a range that matches nothing beside others."""
    parts: list[str] = []
    start = -1
    for code, wanted in enumerate([*chosen, False]):
        if wanted and start < 0:
            start = code
        elif not wanted and start >= 0:
            parts.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = -1
    if not parts:
        raise BadExpression("empty character classes are not allowed")
    return "".join(parts)
