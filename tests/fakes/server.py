"""The service on a real socket, inside the test's event loop: streaming, disconnects and limits are the true ones.

async with serving(tmp_path, backend) as server:
    answer = await server.client.get("/health")
    server.parts.admission ...
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from service.api.parts import Parts
from service.app import create_app
from service.backends.base import Backend
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import DEMO
from service.settings import Settings
from service.telemetry import Traces
from service.tools.base import Toolbox


class QuietServer(uvicorn.Server):
    """A server that leaves the test process's signal handlers alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@dataclass(frozen=True)
class Serving:
    """A running service."""

    url: str
    client: httpx.AsyncClient
    parts: Parts
    server: uvicorn.Server


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    backend: Backend | None = None,
    toolbox: Toolbox | None = None,
    *,
    headers: dict[str, str] | None = None,
    traces: Traces | None = None,
    **settings: Any,
) -> AsyncGenerator[Serving]:
    """Serve with the run store in `folder` until the block ends."""
    values: dict[str, Any] = {
        "data_dir": folder,
        "model": "scripted",
        "backend": "scripted",
        "drain_seconds": 1.0,
        "poll_seconds": 0.05,
        **settings,
    }
    app = create_app(Settings(**values), backend=backend or ScriptedBackend(DEMO), toolbox=toolbox, traces=traces)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = QuietServer(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            task.result()
            raise RuntimeError("The server ended while starting.")
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as client:
            yield Serving(url, client, app.state.parts, server)
    finally:
        server.should_exit = True
        await task
