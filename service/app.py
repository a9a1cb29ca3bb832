"""The FastAPI application: routes, middleware, and the start and end of the process's parts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from importlib.metadata import PackageNotFoundError, version

import structlog
from fastapi import FastAPI

from service import backends
from service.api import failures, health
from service.api.edge import Edge
from service.api.parts import Parts
from service.backends.base import Backend, BackendError
from service.drain import Drain
from service.settings import Settings
from service.store import Store
from service.telemetry import Metrics, names
from service.tools.base import Tool, Toolbox

log = structlog.get_logger("service")


def create_app(
    settings: Settings,
    *,
    backend: Backend | None = None,
    toolbox: Toolbox | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """The application of these settings; tests may give it a backend and tools of their own."""
    metrics = metrics or Metrics(models=[settings.model])

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            app.state.parts = await _start(settings, backend, toolbox, metrics, stack)
            log.info("service.started", variant=settings.variant, model=settings.model)
            yield
            log.info("service.stopping")

    app = FastAPI(
        title="Agent Loop",
        version=_version(),
        summary="Agents with tools, limits and streaming over local models",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        max_body_size=settings.max_body,
    )
    failures.install(app)
    app.include_router(health.router)
    app.add_middleware(Edge, metrics=metrics, variant=settings.variant)
    return app


async def _start(
    settings: Settings,
    backend: Backend | None,
    toolbox: Toolbox | None,
    metrics: Metrics,
    stack: contextlib.AsyncExitStack,
) -> Parts:
    """Build the parts in order; `stack` closes them in the opposite one."""
    stack.callback(metrics.close)
    drain = Drain()
    stack.callback(drain.on_signals())
    store = await Store.open(settings.database())
    stack.push_async_callback(store.aclose)
    backend = backend or backends.create(settings, metrics)
    stack.push_async_callback(backend.aclose)
    toolbox = toolbox or create_toolbox(settings)
    await toolbox.start()
    stack.push_async_callback(toolbox.aclose)
    parts = Parts(settings, _version(), metrics, drain, store, backend, toolbox)
    await _describe(parts)
    return parts


async def _describe(parts: Parts) -> None:
    """Tell the metrics what runs here; a backend that is down now is not a reason not to start."""
    digest = ""
    try:
        models = await parts.backend.models()
        parts.metrics.allow_models(model.name for model in models)
        digest = next((model.digest for model in models if model.name == parts.settings.model), "")
    except BackendError as error:
        log.warning("backend.not_ready", reason=error.message)
    parts.metrics.set(
        names.BUILD,
        1,
        version=parts.version,
        revision=parts.settings.revision,
        model_digest=digest,
        variant=parts.settings.variant,
    )


def _version() -> str:
    try:
        return version("agent-loop")
    except PackageNotFoundError:
        return "0"


class _NoTools:
    def names(self) -> tuple[str, ...]:
        return ()

    def get(self, name: str) -> Tool | None:
        return None

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


def create_toolbox(settings: Settings) -> Toolbox:
    """The configured tools."""
    return _NoTools()
