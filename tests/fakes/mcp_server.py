"""A real MCP server (of the `mcp` package) for tests: `python -m tests.fakes.mcp_server` speaks over stdio."""

from __future__ import annotations

import os

from mcp.server import MCPServer

server = MCPServer("test")


@server.tool(description="Adds two numbers.")
def add(a: int, b: int) -> str:
    return str(a + b)


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("the disk is full")


@server.tool(name="odd.name")
def odd() -> dict[str, int]:
    """Structured."""
    return {"n": 7}


@server.tool()
def crash() -> str:
    """Ends the process."""
    os._exit(3)


if __name__ == "__main__":
    server.run("stdio")
