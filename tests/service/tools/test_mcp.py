"""MCP tools against a real server of the `mcp` package, over HTTP and as a child process."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn

from service.errors import StartupError
from service.settings import Settings
from service.tools import create
from service.tools.base import ToolContext, ToolError
from service.tools.mcp import McpServer
from service.tools.toolbox import Tools
from tests.fakes.mcp_server import server

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]

CONTEXT = ToolContext("run_1", "call_1", "0" * 64)
CHILD = {"command": [sys.executable, "-m", "tests.fakes.mcp_server"]}


@asynccontextmanager
async def listening() -> AsyncIterator[str]:
    """The server on a loopback port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.listen()
        config = uvicorn.Config(server.streamable_http_app(), log_level="error", lifespan="on")
        web = uvicorn.Server(config)
        task = asyncio.create_task(web.serve(sockets=[free]))
        with anyio.fail_after(20):
            while not web.started:  # noqa: ASYNC110  (uvicorn has no event for it)
                await anyio.sleep(0.02)
        yield f"http://127.0.0.1:{port}/mcp"
        web.should_exit = True
        await task


async def call(tools: Tools, name: str, **arguments: Any) -> str:
    tool = tools.get(name)
    assert tool is not None
    return await tool(arguments, CONTEXT)


class TestHttp:
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    async def test_its_tools_are_offered_and_called(self) -> None:
        """Under the server's name, with description and schema; errors are for the model; names are made plain."""
        async with listening() as url:
            tools = create(Settings(mcp_servers={"demo": {"url": url}}, tools=None))
            await tools.start()
            assert {"demo_add", "demo_fail", "demo_odd_name", "calculator"} <= set(tools.names())
            add = tools.get("demo_add")
            assert add is not None
            assert add.description == "Adds two numbers."
            assert add.parameters["required"] == ["a", "b"]
            assert await call(tools, "demo_add", a=2, b=40) == "42"
            assert '"n"' in await call(tools, "demo_odd_name")
            with pytest.raises(ToolError, match="fail"):
                await call(tools, "demo_fail")
            with pytest.raises(ToolError):
                await call(tools, "demo_add", a="x", b=1)
            await tools.aclose()


class TestChild:
    async def test_an_allowed_command_is_started_and_ended(self) -> None:
        """Its tools work, and a process that died is started again by the next call."""
        source = McpServer("child", CHILD, allowed=(sys.executable,), timeout=20)
        tools = Tools(sources=[source])
        await tools.start()
        assert await call(tools, "child_add", a=1, b=2) == "3"
        with pytest.raises(ToolError):
            await call(tools, "child_crash")
        assert await call(tools, "child_add", a=2, b=2) == "4"
        await tools.aclose()

    async def test_a_command_that_is_not_allowed_never_starts(self) -> None:
        """The configuration is refused, and says how to allow it."""
        with pytest.raises(StartupError, match="AGENT_LOOP_MCP_COMMANDS"):
            create(Settings(mcp_servers={"child": CHILD}))

    @pytest.mark.parametrize(
        "config",
        [{}, {"url": "ftp://x"}, {"command": []}, {"command": "sh"}, {"url": "http://x", "command": ["sh"]}, 7],
    )
    async def test_a_bad_configuration_is_named(self, config: Any) -> None:
        """With the server's name."""
        with pytest.raises(StartupError, match="'x'"):
            McpServer("x", config, allowed=("sh",))


class TestDown:
    async def test_a_server_that_is_down_does_not_stop_the_service(self) -> None:
        """It is logged; the other tools are there."""
        settings = Settings(mcp_servers={"gone": {"url": "http://127.0.0.1:1/mcp"}})
        tools = create(settings)
        await tools.start()
        assert "calculator" in tools.names()
        assert not [name for name in tools.names() if name.startswith("gone")]
        await tools.aclose()
