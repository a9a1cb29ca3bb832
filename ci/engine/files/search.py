"""Searching text in a tree, with ripgrep's habits: hidden files too, binary files not, one result a line."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ci.engine.errors import FieldError

from . import expressions, patterns
from .tree import Tree, TreeError, clean

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

    def expression(self) -> re.Pattern[str]:
        """Compiled. Raises FieldError."""
        flags = re.MULTILINE
        flags |= re.IGNORECASE if self.insensitive else 0
        flags |= re.DOTALL if self.dotall else 0
        try:
            return re.compile(re.escape(self.pattern) if self.literal else expressions.python(self.pattern), flags)
        except (re.error, expressions.BadExpression) as bad:
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


def _files(tree: Tree, query: Query) -> Iterator[tuple[str, str]]:
    roots = [_root(tree, p) for p in query.paths]
    globs = [_Glob.of(g) for g in query.globs]
    gone = patterns.ignored(tree.kinds(), tree.text) if query.skip_ignored else set[str]()
    # hidden files last: with a limit a Dagger engine (which searches in parallel) finds the others first
    for path, entry in sorted(tree.walk(), key=lambda item: "/." in f"/{item[0]}"):
        if entry.kind != "file" or path in gone:
            continue
        if roots and not any(path == r or not r or path.startswith(f"{r}/") for r in roots):
            continue
        if query.skip_hidden and path not in roots and any(p.startswith(".") for p in path.split("/")):
            continue
        if globs and not _globbed(path, globs):
            continue
        data = entry.blob.read()
        if b"\0" not in data[:8192]:
            yield path, data.decode(errors="surrogateescape")


def _root(tree: Tree, text: str) -> str:
    """A path to search in, without links. Raises FieldError where it leads out of the tree or nowhere."""
    path = posixpath.normpath(text.lstrip("/")) if text.lstrip("/") else "."
    if path == ".." or path.startswith("../"):
        raise FieldError(f"path cannot escape directory: {text}")
    try:
        return tree.real(clean(path))
    except TreeError:
        raise FieldError(f"ripgrep error: rg: {path}: No such file or directory (os error 2)\n") from None


@dataclass(frozen=True)
class _Glob:
    """One glob: without a slash it is for names, with one for paths. `!` takes away, a folder with all below it;
    the others choose files, and a folder's name alone chooses none of those in it."""

    match: re.Pattern[str]
    whole: bool
    taken: bool
    folder: bool

    @classmethod
    def of(cls, glob: str) -> _Glob:
        """Raises FieldError for one that cannot be read."""
        text = glob.removeprefix("!")
        choices = [text]
        while found := next((BRACES.search(c) for c in choices if BRACES.search(c)), None):
            each = [f"{found.string[: found.start()]}{c}{found.string[found.end() :]}" for c in found[1].split(",")]
            choices = [c for c in choices if c != found.string] + each
        try:
            made = "|".join(patterns.expression(c.strip("/")).pattern for c in choices)
        except patterns.BadPattern as bad:
            raise FieldError(f"ripgrep error: rg: error parsing glob '{glob}': {bad}\n") from None
        whole, folder = "/" in text.rstrip("/"), text.endswith("/")
        return cls(re.compile(made, re.DOTALL), whole, glob.startswith("!"), folder)

    def hits(self, path: str) -> bool:
        """Whether it says something of a file."""
        ways = [path]
        while self.taken and (path := posixpath.dirname(path)):
            ways.append(path)
        ways = ways[1:] if self.folder else ways
        return any(self.match.match(w if self.whole else posixpath.basename(w)) for w in ways)


BRACES = re.compile(r"\{([^{}]*)\}")


def _globbed(path: str, globs: list[_Glob]) -> bool:
    chosen = all(g.taken for g in globs)
    for glob in globs:
        if glob.hits(path):
            chosen = not glob.taken
    return chosen


def _search(path: str, data: str, expression: re.Pattern[str], query: Query) -> Iterator[Found]:
    from ci.engine.fields.records import Found, Submatch

    if query.files_only:
        if next(_matches(data, expression, query), None) is not None:
            yield Found(path, 0, 0, "", ())
        return
    groups: dict[tuple[int, int], list[re.Match[str]]] = {}
    for match in _matches(data, expression, query):
        start = data.rfind("\n", 0, match.start()) + 1
        last = max(match.end() - 1, match.start())
        end = data.find("\n", last)
        groups.setdefault((start, len(data) if end < 0 else end + 1), []).append(match)
    for (start, end), matches in groups.items():
        lines = data[start:end]
        if re.search("[\udc80-\udcff]", lines):
            continue  # bytes that are no text: a Dagger engine leaves such lines out
        yield Found(
            path,
            data.count("\n", 0, start) + 1,
            _size(data[:start]),
            lines,
            tuple(Submatch(m.group(), _size(data[start : m.start()]), _size(data[start : m.end()])) for m in matches),
        )


def _size(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))


def _matches(data: str, expression: re.Pattern[str], query: Query) -> Iterator[re.Match[str]]:
    if query.multiline:
        yield from expression.finditer(data)
        return
    start = 0
    while start < len(data):
        end = data.find("\n", start)
        end = len(data) if end < 0 else end
        yield from expression.finditer(data, start, end)
        start = end + 1
