"""Who is calling, for route handlers: a scope is a dependency, and so are arrival time and admission."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from service.api.parts import PartsOf
from service.auth import Principal

# Only says in the OpenAPI document how to authenticate; the check is `auth.Authenticator`.
_bearer = HTTPBearer(auto_error=False, description="An API key; not needed in open mode.")


async def _principal(request: Request, parts: PartsOf, _: Annotated[object, Depends(_bearer)]) -> Principal:
    return await parts.authenticate(request.headers)


async def _chat(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    principal.require("chat")
    return principal


async def _runs(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    principal.require("runs")
    return principal


async def _arrival(request: Request) -> float:
    return float(request.state.arrival)


async def _any(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    return principal


Anyone = Annotated[Principal, Depends(_any)]
Chatter = Annotated[Principal, Depends(_chat)]
RunOwner = Annotated[Principal, Depends(_runs)]
Arrival = Annotated[float, Depends(_arrival)]
