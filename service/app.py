"""The FastAPI application: routes, middleware, and the start and end of the process's parts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog
from fastapi import FastAPI

from service import backends, tools, web
from service.admission import Admission, Allowance, Gate
from service.agents import Agents
from service.api import failures, health, openai, runs
from service.api.edge import Edge
from service.api.parts import Parts
from service.auth import Authenticator, check_keys
from service.backends.base import Backend, BackendError
from service.backends.observed import Observed
from service.drain import Drain
from service.model_calls import ModelCalls
from service.runs.reader import Reader
from service.runs.runner import Runner
from service.settings import Settings
from service.store import Store
from service.telemetry import Metrics, Traces, lag, names
from service.tools.base import Toolbox

log = structlog.get_logger("service")


def create_app(
    settings: Settings,
    *,
    backend: Backend | None = None,
    toolbox: Toolbox | None = None,
    metrics: Metrics | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """The application of these settings; tests may give it a backend and tools of their own."""
    metrics = metrics or Metrics(models=[settings.model])
    traces = traces or _traces(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            app.state.parts = await _start(settings, backend, toolbox, metrics, traces, stack)
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
    )
    failures.install(app)
    app.include_router(health.router)
    app.include_router(runs.router)
    app.include_router(openai.router)
    app.include_router(web.router)
    app.add_middleware(Edge, metrics=metrics, traces=traces, variant=settings.variant, max_body=settings.max_body)
    return app


async def _start(
    settings: Settings,
    backend: Backend | None,
    toolbox: Toolbox | None,
    metrics: Metrics,
    traces: Traces,
    stack: contextlib.AsyncExitStack,
) -> Parts:
    """Build the parts in order; `stack` closes them in the opposite one."""
    stack.callback(metrics.close)
    stack.push_async_callback(asyncio.to_thread, traces.close)
    drain = Drain()
    stack.callback(drain.on_signals())
    store = await Store.open(settings.database())
    stack.push_async_callback(store.aclose)
    await check_keys(settings, store.keys)
    backend = Observed(backend, metrics, traces) if backend else backends.create(settings, metrics, traces)
    stack.push_async_callback(backend.aclose)
    toolbox = toolbox or tools.create(settings)
    await toolbox.start()
    stack.push_async_callback(toolbox.aclose)
    gate = Gate(settings.parallelism or backend.parallelism, settings, metrics)
    calls = ModelCalls(backend, gate, metrics)
    stack.push_async_callback(calls.aclose)
    variant = await _variant(settings, backend, metrics)
    runner = Runner(settings, store, calls, gate, toolbox, metrics, traces, drain, variant)
    runner.start()
    stack.push_async_callback(runner.aclose)
    watching = asyncio.create_task(lag.watch(metrics), name="loop-lag")
    stack.callback(watching.cancel)
    return Parts(
        settings=settings,
        version=_version(),
        metrics=metrics,
        drain=drain,
        store=store,
        backend=backend,
        toolbox=toolbox,
        authenticate=Authenticator(settings, store.keys),
        admission=Admission(gate, Allowance(settings, metrics)),
        calls=calls,
        agents=Agents(settings, toolbox),
        runner=runner,
        reader=Reader(runner, store, settings.poll_seconds),
    )


def _traces(settings: Settings) -> Traces:
    if settings.otlp_endpoint is None:
        return Traces()
    return Traces.to(settings.otlp_endpoint, capture_content=settings.capture_content)


async def _variant(settings: Settings, backend: Backend, metrics: Metrics) -> dict[str, Any]:
    """What this deployment is, as recorded on each run; a backend that is down now is no reason not to start."""
    digest = ""
    try:
        models = await backend.models()
        metrics.allow_models(model.name for model in models)
        digest = next((model.digest for model in models if model.name == settings.model), "")
    except BackendError as error:
        log.warning("backend.not_ready", reason=error.message)
    metrics.set(
        names.BUILD,
        1,
        version=_version(),
        revision=settings.revision,
        model_digest=digest,
        variant=settings.variant,
    )
    return {
        "name": settings.variant,
        "image": settings.image,
        "revision": settings.revision,
        "model": settings.model,
        "model_digest": digest,
        "prompt_sha": hashlib.sha256(settings.agent_prompt.encode()).hexdigest()[:16],
        "agents_sha": hashlib.sha256(json.dumps(settings.agents, sort_keys=True).encode()).hexdigest()[:16],
    }


def _version() -> str:
    try:
        return version("agent-loop")
    except PackageNotFoundError:
        return "0"
