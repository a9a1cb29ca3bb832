"""The tools of a process: built-in ones, those of installed packages, and those of MCP servers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from typing import Protocol

import structlog

from service.tools.base import Tool

GROUP = "agent_loop.tools"
"""Entry point group under which a package offers tools."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
log = structlog.get_logger(__name__)


class Source(Protocol):
    """Something that has tools only while connected, such as an MCP server."""

    @property
    def label(self) -> str:
        """Its name, for the log."""
        ...

    async def connect(self) -> Sequence[Tool]:
        """Connect and list its tools."""
        ...

    async def aclose(self) -> None:
        """Disconnect."""
        ...


class Tools:
    """Looks tools up by name (`service.tools.base.Toolbox`)."""

    def __init__(
        self, tools: Iterable[Tool] = (), sources: Sequence[Source] = (), only: Iterable[str] | None = None
    ) -> None:
        """`only`: the names on offer; None offers all."""
        self._only = None if only is None else frozenset(only)
        self._tools: dict[str, Tool] = {}
        self._sources = sources
        for each in tools:
            self.add(each)

    def add(self, tool: Tool) -> None:
        """Offer a tool, if `only` allows it. Raises ValueError for a bad name or one that is taken."""
        if not _NAME.fullmatch(tool.name):
            raise ValueError(f"Bad tool name: {tool.name!r}. Use 1 to 64 letters, digits, '_' and '-'.")
        if self._only is not None and tool.name not in self._only:
            return
        if tool.name in self._tools:
            raise ValueError(f"Two tools have one name: {tool.name!r}. Rename one.")
        self._tools[tool.name] = tool

    def names(self) -> tuple[str, ...]:
        """Every tool's name, sorted."""
        return tuple(sorted(self._tools))

    def get(self, name: str) -> Tool | None:
        """The tool of that name."""
        return self._tools.get(name)

    async def start(self) -> None:
        """Connect the sources. One that is down is logged; its tools are absent."""
        for source in self._sources:
            try:
                for each in await source.connect():
                    self.add(each)
            except Exception as error:
                log.warning("tools.source_failed", source=source.label, error=f"{type(error).__name__}: {error}")

    async def aclose(self) -> None:
        """Disconnect the sources, the last one first."""
        for source in reversed(self._sources):
            await source.aclose()


def installed() -> list[Tool]:
    """Tools of installed packages. One that cannot be loaded is logged and left out."""
    found: list[Tool] = []
    for point in entry_points(group=GROUP):
        try:
            loaded = point.load()
        except Exception as error:
            log.warning("tools.load_failed", tool=point.name, error=f"{type(error).__name__}: {error}")
            continue
        if isinstance(loaded, Tool):
            found.append(loaded)
        else:
            log.warning("tools.load_failed", tool=point.name, error=f"{point.value} is no tool")
    return found
