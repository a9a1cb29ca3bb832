"""Searching text in a tree, with ripgrep's habits: hidden files too, binary files not, one result a line."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ci.engine.errors import FieldError

from . import patterns
from .tree import Tree, clean

if TYPE_CHECKING:
    from ci.engine.fields.records import Found


@dataclass(frozen=True)
class Query:
    """The arguments of `search`."""

    pattern: str
    literal: bool = False
    multiline: bool = False
    dotall: bool = False
    insensitive: bool = False
    skip_ignored: bool = False
    skip_hidden: bool = False
    files_only: bool = False
    limit: int | None = None
    paths: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Query:
        """From a field's arguments."""
        return cls(
            args["pattern"],
            bool(args.get("literal")),
            bool(args.get("multiline")),
            bool(args.get("dotall")),
            bool(args.get("insensitive")),
            bool(args.get("skipIgnored")),
            bool(args.get("skipHidden")),
            bool(args.get("filesOnly")),
            args.get("limit"),
            tuple(args.get("paths") or ()),
            tuple(args.get("globs") or ()),
        )

    def expression(self) -> re.Pattern[bytes]:
        """Compiled. Raises FieldError."""
        text = re.escape(self.pattern) if self.literal else self.pattern
        flags = re.MULTILINE
        flags |= re.IGNORECASE if self.insensitive else 0
        flags |= re.DOTALL if self.dotall else 0
        try:
            return re.compile(text.encode(), flags)
        except re.error as bad:
            raise FieldError(f"ripgrep error: regex parse error:\n    {self.pattern}\n    ^\nerror: {bad}\n") from None


def search_tree(tree: Tree, query: Query) -> list[Found]:
    """Results by file and line. Raises FieldError for a bad expression."""
    expression = query.expression()
    results: list[Found] = []
    for path, data in _files(tree, query):
        for found in _search(path, data, expression, query):
            results.append(found)
            if query.limit is not None and len(results) >= query.limit:
                return results
    return results


def _files(tree: Tree, query: Query) -> Iterator[tuple[str, bytes]]:
    roots = [clean(p) for p in query.paths]
    gone = patterns.ignored(tree.kinds(), tree.text) if query.skip_ignored else set[str]()
    # hidden files last: with a limit a Dagger engine (which searches in parallel) finds the others first
    for path, entry in sorted(tree.walk(), key=lambda item: "/." in f"/{item[0]}"):
        if entry.kind != "file" or path in gone:
            continue
        if roots and not any(path == r or path.startswith(f"{r}/") for r in roots):
            continue
        if query.skip_hidden and any(p.startswith(".") for p in path.split("/")):
            continue
        if query.globs and not _globbed(path, query.globs):
            continue
        data = entry.blob.read()
        if b"\0" not in data[:8192]:
            yield path, data


def _globbed(path: str, globs: tuple[str, ...]) -> bool:
    """A glob without a slash is for names, one with a slash for paths; `!` takes away."""
    chosen = not any(not g.startswith("!") for g in globs)
    for glob in globs:
        text = glob.removeprefix("!")
        subject = path if "/" in text else posixpath.basename(path)
        if patterns.expression(text.lstrip("/")).match(subject):
            chosen = not glob.startswith("!")
    return chosen


def _search(path: str, data: bytes, expression: re.Pattern[bytes], query: Query) -> Iterator[Found]:
    from ci.engine.fields.records import Found, Submatch

    if query.files_only:
        if next(_matches(data, expression, query), None) is not None:
            yield Found(path, 0, 0, "", ())
        return
    groups: dict[tuple[int, int], list[re.Match[bytes]]] = {}
    for match in _matches(data, expression, query):
        start = data.rfind(b"\n", 0, match.start()) + 1
        last = max(match.end() - 1, match.start())
        end = data.find(b"\n", last)
        groups.setdefault((start, len(data) if end < 0 else end + 1), []).append(match)
    for (start, end), matches in groups.items():
        yield Found(
            path,
            data.count(b"\n", 0, start) + 1,
            start,
            data[start:end].decode(errors="replace"),
            tuple(Submatch(m.group().decode(errors="replace"), m.start() - start, m.end() - start) for m in matches),
        )


def _matches(data: bytes, expression: re.Pattern[bytes], query: Query) -> Iterator[re.Match[bytes]]:
    if query.multiline:
        yield from expression.finditer(data)
        return
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        yield from expression.finditer(data, start, end)
        start = end + 1
