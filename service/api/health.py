"""`/health` (the process is alive), `/ready` (it can take work), `/metrics` (for Prometheus). None needs a key."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from service.api.parts import PartsOf
from service.backends.base import BackendError

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str
    variant: str


class Readiness(BaseModel):
    """Whether work would succeed now, and what stands in the way."""

    ready: bool
    checks: dict[str, str]
    """Each of `backend`, `store` and `draining`: `ok`, or the problem in a sentence."""


@router.get("/health")
async def health(parts: PartsOf) -> Health:
    """The process is alive. Says nothing of the model: see `/ready`."""
    return Health(version=parts.version, variant=parts.settings.variant)


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(parts: PartsOf, response: Response) -> Readiness:
    """200 while the backend is there with its model, the store works and the process is not draining; else 503."""
    checks = {"draining": "draining" if parts.drain.started else "ok"}
    try:
        await parts.backend.ready(parts.settings.model)
        checks["backend"] = "ok"
    except BackendError as error:
        checks["backend"] = error.message
    try:
        await parts.store.ping()
        checks["store"] = "ok"
    except Exception as error:  # whatever a driver raises: the answer is the same
        checks["store"] = f"Store does not answer ({type(error).__name__})."
    good = all(value == "ok" for value in checks.values())
    if not good:
        response.status_code = 503
    return Readiness(ready=good, checks=checks)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, parts: PartsOf) -> Response:
    """The metrics of this process, or of all workers when they share a folder."""
    body, content_type = parts.metrics.expose(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
