"""Tools for agents: `create` makes the configured toolbox. To add one see `function.tool`."""

from __future__ import annotations

from service.settings import Settings
from service.tools.base import Tool, ToolContext, ToolError
from service.tools.calculator import calculator
from service.tools.clock import clock
from service.tools.function import tool
from service.tools.toolbox import Source, Tools, installed

__all__ = ["Tool", "ToolContext", "ToolError", "create", "tool"]


def create(settings: Settings) -> Tools:
    """The tools that the settings offer; MCP servers join on `start()`. Raises StartupError."""
    sources: list[Source] = []
    return Tools([calculator, clock, *installed()], sources, settings.tools)
