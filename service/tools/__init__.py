"""Tools for agents: `create` makes the configured toolbox. To add one see `function.tool`."""

from __future__ import annotations

from service.settings import Settings
from service.tools import fetch
from service.tools.base import Tool, ToolContext, ToolError
from service.tools.calculator import calculator
from service.tools.clock import clock
from service.tools.function import tool
from service.tools.toolbox import Tools, installed

__all__ = ["Tool", "ToolContext", "ToolError", "create", "tool"]


def create(settings: Settings) -> Tools:
    """The tools that the settings offer; those of MCP servers join on `start()`. Raises StartupError."""
    sources = []
    if settings.mcp_servers:
        from service.tools.mcp import servers  # loads a large library

        sources = servers(settings.mcp_servers, allowed=settings.mcp_commands, timeout=settings.tool_timeout)
    builtin: list[Tool] = [calculator, clock, fetch.create(settings.fetch_hosts)]
    return Tools([*builtin, *installed()], sources, settings.tools)
