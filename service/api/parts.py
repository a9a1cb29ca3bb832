"""What a request handler works with: the process's parts, made once at start-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from service.admission import Admission
from service.agents import Agents
from service.auth import Authenticator
from service.backends.base import Backend
from service.drain import Drain
from service.model_calls import ModelCalls
from service.runs.reader import Reader
from service.runs.runner import Runner
from service.settings import Settings
from service.store import Store
from service.telemetry import Metrics
from service.tools.base import Toolbox


@dataclass(slots=True)
class Parts:
    """Everything alive in one process; `service.app.lifespan` builds and closes it."""

    settings: Settings
    version: str
    metrics: Metrics
    drain: Drain
    store: Store
    backend: Backend
    toolbox: Toolbox
    authenticate: Authenticator
    admission: Admission
    calls: ModelCalls
    agents: Agents
    runner: Runner
    reader: Reader


def parts_of(request: Request) -> Parts:
    """The parts of the application that got this request."""
    return cast("Parts", request.app.state.parts)


PartsOf = Annotated[Parts, Depends(parts_of)]
