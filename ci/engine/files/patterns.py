"""Path patterns as `.dockerignore` has them, and `.gitignore` files.

`*` matches a leading dot and never a slash, `**` any number of folders, `[...]` a class; there are no braces.
In a list the last pattern that matches wins, `!` negates, and what matches a folder matches all below it.
Source of the rules: cases `*-include-*`, `*-exclude-*`, `dir-glob*` of the recorded answers.
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache


class BadPattern(ValueError):
    """A pattern that cannot be read."""


@lru_cache(maxsize=512)
def expression(pattern: str) -> re.Pattern[str]:
    """The regular expression of one pattern without its `!`. Raises BadPattern."""
    out = ["^"]
    i, size = 0, len(pattern)
    inside = False
    while i < size:
        char = pattern[i]
        i += 1
        if char == "*" and not inside:
            if pattern[i : i + 1] == "*":
                i += 1
                if pattern[i : i + 1] == "/":
                    i += 1
                out.append(".*" if i >= size else "(.*/)?")
            else:
                out.append("[^/]*")
        elif char == "?" and not inside:
            out.append("[^/]")
        elif char == "\\":
            if i >= size:
                raise BadPattern("syntax error in pattern")
            out.append(re.escape(pattern[i]))
            i += 1
        elif char == "[" and not inside:
            inside = True
            out.append("[")
        elif char == "]" and inside:
            inside = False
            out.append("]")
        elif inside and char in "-^":
            out.append(char)
        else:
            out.append(re.escape(char))
    if inside:
        raise BadPattern("syntax error in pattern")
    out.append("$")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile("".join(out), re.DOTALL)
    except re.error:
        raise BadPattern("syntax error in pattern") from None


@dataclass(frozen=True)
class _Rule:
    match: re.Pattern[str]
    negated: bool


def _way(pattern: str) -> list[str]:
    """The folders that a pattern names before its first wildcard."""
    parts = pattern.split("/")
    wild = next((i for i, part in enumerate(parts) if re.search(r"[*?\[\\]", part)), len(parts))
    return parts[:wild]


class Matcher:
    """A list of patterns; `matches(path)` for paths relative to the root, without a leading slash."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.rules: list[_Rule] = []
        self._ways: list[list[str]] = []
        for pattern in patterns:
            text = pattern.strip()
            if not text:
                continue
            negated = text.startswith("!")
            text = text[1:] if negated else text
            self.rules.append(_Rule(expression(posixpath.normpath(text)), negated))
            if negated:
                self._ways.append(_way(posixpath.normpath(text)))
        self._known: dict[str, tuple[bool, ...]] = {}

    def closes(self, folder: str) -> bool:
        """Whether a folder matches, and so does all below it: no negated pattern leads there."""
        if not self.matches(folder):
            return False
        parts = folder.split("/")
        return all(parts[: len(way)] != way[: len(parts)] for way in self._ways)

    def matches(self, path: str) -> bool:
        """Whether the last pattern that matches the path, or a folder above it, is no negated one."""
        found = False
        for rule, hit in zip(self.rules, self._hits(path), strict=True):
            if hit:
                found = not rule.negated
        return found

    def _hits(self, path: str) -> tuple[bool, ...]:
        known = self._known.get(path)
        if known is None:
            above = self._hits(posixpath.dirname(path)) if "/" in path else (False,) * len(self.rules)
            known = tuple(up or rule.match.match(path) is not None for rule, up in zip(self.rules, above, strict=True))
            self._known[path] = known
        return known


def keep(paths: Mapping[str, bool], include: Sequence[str], exclude: Sequence[str]) -> set[str]:
    """Which paths remain of a tree (`paths`: path to whether it is a folder).

    With `include` a folder stays if it matches or is on the way to something that stays; an excluded folder
    stays only on the way. Raises BadPattern.
    """
    wanted = Matcher(include) if include else None
    unwanted = Matcher(exclude)
    kept: set[str] = set()
    for path in paths:
        if (wanted is None or wanted.matches(path)) and not unwanted.matches(path):
            while path and path not in kept:
                kept.add(path)
                path = posixpath.dirname(path)
    return kept


def ignored(
    paths: Mapping[str, bool], read: Callable[[str], str | None], above: Sequence[tuple[str, str]] = ()
) -> set[str]:
    """Paths that the `.gitignore` files of a tree ignore.

    `read(path)` gives the text of a file of the tree, or None. `above` are ignore files from outside: the way
    from their folder to the tree's root, and the text.
    """
    from pathspec import GitIgnoreSpec

    outer = [(prefix, GitIgnoreSpec.from_lines(text.splitlines())) for prefix, text in above]
    specs: dict[str, GitIgnoreSpec | None] = {}

    def spec(folder: str) -> GitIgnoreSpec | None:
        if folder not in specs:
            text = read(posixpath.join(folder, ".gitignore"))
            specs[folder] = GitIgnoreSpec.from_lines(text.splitlines()) if text is not None else None
        return specs[folder]

    gone: set[str] = set()
    for path in sorted(paths, key=lambda p: p.split("/")):
        parent = posixpath.dirname(path)
        if parent in gone:
            gone.add(path)
            continue
        slash = "/" if paths[path] else ""
        verdict: bool | None = None
        for prefix, outside in outer:
            said = outside.check_file(posixpath.join(prefix, path) + slash).include
            verdict = said if said is not None else verdict
        parts = parent.split("/") if parent else []
        for depth in range(len(parts) + 1):
            folder = "/".join(parts[:depth])
            inside = spec(folder)
            if inside is not None:
                said = inside.check_file(posixpath.relpath(path, folder or ".") + slash).include
                verdict = said if said is not None else verdict
        if verdict:
            gone.add(path)
    return gone
