"""The text of an env file: its lines, and what their values come to.

    lines = parse('A=1\nB="$A and more"\n')       # (("A", "1"), ("B", '"$A and more"'))
    values(lines)["B"]                            # '1 and more'

A value without a quote, a backslash or a variable is taken as it is written, a `#` in it too. Any other is read as a
shell reads words: quotes go, variables become their values, the words are joined with one space. A variable may
stand anywhere in the file, below its use too; one that is nowhere, or empty, is an error, as is a circle of them.
A line that looks like a comment is a variable of that name (case `file-as-env-file` of the recorded answers).
Source of the rest: the engine's tests of its package `core/dotenv`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ci.engine.errors import FieldError, Unsupported
from ci.engine.values import Pairs, put

Lookup = Callable[[str], str]
"""From a variable's name to its value, empty where there is none."""

SHELL = re.compile(r"[`\"'\\]|\$[A-Za-z_{(]")
"""What makes a value more than its text."""
PARAMETER = re.compile(
    r"\$(?:(?P<bare>[A-Za-z_]\w*|\d)|\{(?P<braced>[A-Za-z_]\w*|\d+)(?P<then>:?[-+](?=.)|(?=\})))", re.A
)
OPERATORS = frozenset(";&|<>()`")


def parse(text: str) -> Pairs:
    """Names and values as they are written; of a name that comes twice the last value, in the first one's place."""
    found: Pairs = ()
    for line in text.split("\n"):
        if line.strip():
            name, _, value = re.sub(r"^export[ \t]+", "", line.strip()).partition("=")
            found = put(found, name, value)
    return found


def values(lines: Pairs, context: Pairs = (), host: Lookup = lambda name: "") -> dict[str, str]:
    """What every variable comes to. Raises FieldError.

    `context`: more lines for variables to be found in; `host`: where they are looked for last, empty if not there.
    """
    file = _File(dict(lines), dict(context), host)
    return {name: file.value(name) for name in sorted(file.lines)}


def value(lines: Pairs, name: str, context: Pairs = (), host: Lookup = lambda name: "") -> str:
    """What one variable comes to, empty where there is none. Raises FieldError."""
    return _File(dict(lines), dict(context), host).value(name)


@dataclass
class _File:
    """Variables while they are worked out."""

    lines: Mapping[str, str]
    context: Mapping[str, str]
    host: Lookup
    done: dict[str, str] = field(default_factory=dict[str, str])
    open: set[str] = field(default_factory=set[str])

    def value(self, name: str) -> str:
        if name in self.done:
            return self.done[name]
        text = self.lines.get(name, self.context.get(name))
        if text is None:
            return ""
        if name in self.open:
            raise FieldError(f"circular dependency detected: {' -> '.join(sorted(self.open))} -> {name}")
        self.open.add(name)
        try:
            self.done[name] = _Words(text, f"{name}={text}", self.variable).joined() if SHELL.search(text) else text
        except Unsupported:
            raise
        except FieldError as bad:
            raise bad if bad.message.startswith("parse error") else FieldError(f"{name}: {bad.message}") from None
        finally:
            self.open.remove(name)
        return self.done[name]

    def variable(self, name: str) -> str:
        """A variable in another's value; empty where it has none."""
        if name not in self.lines and name not in self.context:
            return self.host(name)
        try:
            return self.value(name)
        except Unsupported:
            raise
        except FieldError:
            return ""  # the engine tells of the variable that uses it: unbound


class _Words:
    """A value read as shell words."""

    def __init__(self, text: str, line: str, variable: Lookup) -> None:
        self.text, self.line, self.variable = text, line, variable
        self.at = 0
        self.words: list[str] = []
        self.word: str | None = None

    def joined(self) -> str:
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\r\n":
                self._end()
                self.at += 1
            elif char == "#" and self.word is None and self.at:
                break
            elif char == "'":
                self._add(self.text[self.at + 1 : self._closing("'")])
                self.at = self._closing("'") + 1
            elif char == '"':
                self._double()
            elif char == "\\":
                self._add(self.text[self.at + 1 : self.at + 2] or "\\")
                self.at += 2
            elif char == "$":
                self._unquoted()
            elif char in OPERATORS:
                self._refuse(char)
            elif char == "{" and re.match(r"\{[^\s}]*(?:,|\.\.)[^\s}]*\}", self.text[self.at :]):
                self._refuse("{,}")
            else:
                self._add(char)
                self.at += 1
        self._end()
        return " ".join(self.words)

    def _add(self, text: str) -> None:
        self.word = (self.word or "") + text

    def _end(self) -> None:
        if self.word is not None:
            self.words.append(self.word)
        self.word = None

    def _closing(self, quote: str) -> int:
        found = self.text.find(quote, self.at + 1)
        if found < 0:
            self._unclosed(quote, self.at)
        return found

    def _double(self) -> None:
        start = self.at
        self.at += 1
        self._add("")
        while self.text[self.at : self.at + 1] != '"':
            if self.at >= len(self.text):
                self._unclosed('"', start)
            char, following = self.text[self.at], self.text[self.at + 1 : self.at + 2]
            if char == "\\" and following and following in '$`"\\':
                self._add(following)
                self.at += 2
            elif char == "$":
                self._add(self._parameter())
            elif char == "`":
                self._refuse(char)
            else:
                self._add(char)
                self.at += 1
        self.at += 1

    def _unquoted(self) -> None:
        """A variable outside quotes: its value is split at white space."""
        if self.text[self.at + 1 : self.at + 2] in ("'", '"'):
            self._refuse(self.text[self.at : self.at + 2])
        found = self._parameter()
        if found[:1].isspace():
            self._end()
        for number, part in enumerate(found.split()):
            if number:
                self._end()
            self._add(part)
        if found[-1:].isspace():
            self._end()

    def _parameter(self) -> str:
        """What stands at a dollar: a variable's value, with what `${A:-b}` and its like make of it, or a dollar."""
        here = PARAMETER.match(self.text, self.at)
        if here is None:
            if re.match(r"\$[({$?#@*!-]", self.text[self.at :]):
                self._refuse(self.text[self.at : self.at + 2])
            self.at += 1
            return "$"
        self.at = here.end()
        name, then = here["bare"] or here["braced"], here["then"] or ""
        other = self._until_brace() if here["braced"] else ""
        found = self.variable(name)
        if then.endswith("-"):
            return found or _Words(other, self.line, self.variable).joined()
        if then.endswith("+"):
            return _Words(other, self.line, self.variable).joined() if found else ""
        if not found:
            raise FieldError(f"{name}: unbound variable")
        return found

    def _until_brace(self) -> str:
        start, depth = self.at, 1
        while self.at < len(self.text):
            char = self.text[self.at]
            depth += (char == "{") - (char == "}")
            self.at += 2 if char == "\\" else 1
            if not depth:
                return self.text[start : self.at - 1]
        raise FieldError(f"parse error: {_quoted(self.line)}: reached EOF without matching ${{ with }}")

    def _unclosed(self, quote: str, at: int) -> None:
        column = len(self.line) - len(self.text) + at + 1
        raise FieldError(f"parse error: {_quoted(self.line)}: 1:{column}: reached EOF without closing quote {quote}")

    def _refuse(self, what: str) -> None:
        raise Unsupported(f"{what} in a value of an env file", "Put the value in single quotes to have it as it is.")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
