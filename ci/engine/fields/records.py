"""Fields of the small objects that only hold values: variables, labels, ports, file stats, search results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ci.engine.registry import field
from ci.engine.values import Healthcheck, Port


@dataclass(frozen=True)
class Pair:
    """An environment variable or a label."""

    name: str
    value: str


@dataclass(frozen=True)
class Stat:
    """What `stat` tells of a path."""

    name: str
    size: int
    permissions: int
    kind: str


@dataclass(frozen=True)
class Submatch:
    """One match on a line; offsets in bytes from the line's start."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Found:
    """One line, or with multi-line patterns several, that a search found."""

    path: str
    line: int
    offset: int
    lines: str
    submatches: tuple[Submatch, ...]


KINDS = {"file": "REGULAR", "dir": "DIRECTORY", "link": "SYMLINK"}


def _serve(type_name: str, readers: dict[str, Callable[[Any], Any]]) -> None:
    for name, read in readers.items():
        field(type_name, name)(lambda ctx, parent, args, read=read: read(parent))


for _type in ("EnvVariable", "Label"):
    _serve(_type, {"name": lambda p: p.name, "value": lambda p: p.value})


def _port(read: Callable[[Port], Any]) -> Callable[[Any], Any]:
    return read


def _check(read: Callable[[Healthcheck], Any]) -> Callable[[Any], Any]:
    return read


_serve(
    "Port",
    {
        "port": _port(lambda p: p.port),
        "protocol": _port(lambda p: p.protocol),
        "description": _port(lambda p: p.description),
        "experimentalSkipHealthcheck": _port(lambda p: p.skip_healthcheck),
    },
)
_serve(
    "HealthcheckConfig",
    {
        "args": _check(lambda p: list(p.args)),
        "shell": _check(lambda p: p.shell),
        "interval": _check(lambda p: p.interval),
        "timeout": _check(lambda p: p.timeout),
        "startPeriod": _check(lambda p: p.start_period),
        "startInterval": _check(lambda p: p.start_interval),
        "retries": _check(lambda p: p.retries),
    },
)
_serve(
    "Stat",
    {
        "name": lambda p: p.name,
        "size": lambda p: p.size,
        "permissions": lambda p: p.permissions,
        "fileType": lambda p: KINDS.get(p.kind, "UNKNOWN"),
    },
)
_serve(
    "SearchResult",
    {
        "filePath": lambda p: p.path,
        "lineNumber": lambda p: p.line,
        "absoluteOffset": lambda p: p.offset,
        "matchedLines": lambda p: p.lines,
        "submatches": lambda p: list(p.submatches),
    },
)
_serve("SearchSubmatch", {"text": lambda p: p.text, "start": lambda p: p.start, "end": lambda p: p.end})
