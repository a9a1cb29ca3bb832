"""Tools of MCP servers: over streamable HTTP, or as a child process whose command is on the allow-list.

    McpServer("docs", {"url": "https://docs.example/mcp"})
    McpServer("files", {"command": ["mcp-files", "/data"]}, allowed=("mcp-files",))

A server's tools are offered as `<server>_<tool>`. The connection lives in a task of its own, because the protocol's
library wants it opened and closed in one. A server that goes away is connected to again by the next call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import anyio
import structlog
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import CONNECTION_CLOSED, CallToolResult, TextContent
from mcp.types import Tool as McpTool

from service.backends.base import JsonSchema
from service.errors import StartupError
from service.tools.base import Tool, ToolContext, ToolError

CONNECT_SECONDS = 15.0
MAX_RESULT = 200_000
"""Characters of a result handed to the model."""

log = structlog.get_logger(__name__)


class McpServer:
    """One server (`service.tools.toolbox.Source`)."""

    def __init__(
        self, label: str, config: Mapping[str, Any], *, allowed: Sequence[str] = (), timeout: float = 60.0
    ) -> None:
        """Raises StartupError for a configuration that is neither a URL nor an allowed command."""
        self.label = label
        self._timeout = timeout
        self._target = _target(label, config, allowed)
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._client: Client | None = None
        self._lock = anyio.Lock()

    async def connect(self) -> Sequence[Tool]:
        """Connect and list the tools. Raises whatever the connection fails with."""
        client = await self._connected()
        found: list[Tool] = []
        cursor: str | None = None
        while True:
            page = await client.list_tools(cursor=cursor) if cursor else await client.list_tools()
            found += [self._tool(each) for each in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return found

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool of the server's. Raises ToolError."""
        try:
            client = await self._connected()
            result = await client.call_tool(name, dict(arguments), read_timeout_seconds=self._timeout)
        except Exception as error:
            if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
                raise ToolError(f"The server {self.label} refuses the call: {error}.") from None
            log.warning("tools.mcp_call_failed", source=self.label, tool=name, error=type(error).__name__)
            await self._disconnect()
            raise ToolError(f"The server {self.label} does not answer.") from error
        text = render(result)
        if result.is_error:
            raise ToolError(text or f"The tool {name} failed.")
        return text

    async def aclose(self) -> None:
        """Disconnect; a child process ends."""
        await self._disconnect()

    def _tool(self, tool: McpTool) -> RemoteTool:
        name = re.sub(r"[^a-zA-Z0-9_-]", "_", f"{self.label}_{tool.name}")[:64]
        idempotent = bool(tool.annotations and (tool.annotations.idempotent_hint or tool.annotations.read_only_hint))
        return RemoteTool(
            name, tool.description or tool.name, tool.input_schema, idempotent, self._timeout, self, tool.name
        )

    async def _connected(self) -> Client:
        async with self._lock:
            if self._client is not None and self._task is not None and not self._task.done():
                return self._client
            self._stop = asyncio.Event()
            ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._hold(ready), name=f"mcp-{self.label}")
            self._client = await ready
            return self._client

    async def _hold(self, ready: asyncio.Future[Client]) -> None:
        """Keep the connection open until told to stop."""
        try:
            with anyio.fail_after(CONNECT_SECONDS) as scope:
                async with Client(self._target, read_timeout_seconds=self._timeout) as client:
                    scope.deadline = float("inf")
                    ready.set_result(client)
                    await self._stop.wait()
        except Exception as error:
            if not ready.done():
                ready.set_exception(_flat(error))
            else:
                log.info("tools.mcp_lost", source=self.label, error=type(error).__name__)
        finally:
            self._client = None

    async def _disconnect(self) -> None:
        task, self._task = self._task, None
        self._stop.set()
        if task is not None:
            done, _ = await asyncio.wait({task}, timeout=10)
            if not done:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool of an MCP server."""

    name: str
    description: str
    parameters: JsonSchema
    idempotent: bool
    timeout: float
    _server: McpServer
    _remote: str

    async def __call__(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Call it there."""
        return await self._server.call(self._remote, arguments)


def servers(config: Mapping[str, Any], *, allowed: Sequence[str], timeout: float) -> list[McpServer]:
    """The configured servers. Raises StartupError."""
    return [McpServer(label, each, allowed=allowed, timeout=timeout) for label, each in config.items()]


def render(result: CallToolResult) -> str:
    """A result as text: its texts, else its structured content; what is no text is named."""
    parts = [part.text if isinstance(part, TextContent) else f"[{part.type}]" for part in result.content]
    text = "\n".join(parts)
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    return text if len(text) <= MAX_RESULT else text[:MAX_RESULT] + f"\n[cut after {MAX_RESULT} characters]"


def _target(label: str, config: Any, allowed: Sequence[str]) -> str | StdioServerParameters:
    place = f"AGENT_LOOP_MCP_SERVERS, {label!r}"
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,32}", label):
        raise StartupError(f"Bad name of an MCP server: {place}.", "Use letters, digits, '_' and '-'.")
    fields = cast("Mapping[str, Any]", config) if isinstance(config, Mapping) else {}
    url, command = fields.get("url"), fields.get("command")
    if isinstance(url, str) and url.startswith(("http://", "https://")) and command is None:
        return url
    if isinstance(command, list) and command and url is None and all(isinstance(x, str) for x in cast("Any", command)):
        program, *arguments = cast("list[str]", command)
        if program not in allowed:
            raise StartupError(
                f"An MCP command is not allowed: {program!r} ({place}).",
                f"Add it to AGENT_LOOP_MCP_COMMANDS if you trust it; allowed now: {', '.join(allowed) or 'none'}.",
            )
        return StdioServerParameters(command=program, args=arguments, env=fields.get("env"))
    raise StartupError(
        f"Bad MCP server: {place}: {str(config)[:100]}.", 'Give {"url": "https://…"} or {"command": ["program", …]}.'
    )


def _flat(error: BaseException) -> Exception:
    """The first real cause inside the groups that task groups raise."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = cast("BaseException", error.exceptions[0])
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
