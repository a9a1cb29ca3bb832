"""Reading JSON bodies strictly, so that nothing odd gets past the edge.

Refused with 400 and the place: bytes that are not UTF-8, NaN and infinities, numbers beyond 64 bits, half a
surrogate pair (no such text can be stored or sent on), and nesting deeper than `MAX_DEPTH`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute

MAX_DEPTH = 64


class StrictRequest(Request):
    """A request whose `json()` is strict."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = strict_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose handler gets a StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            strict_request = StrictRequest(request.scope, request.receive)
            # Read here: the framework would turn the edge's 413 into a 400.
            await strict_request.body()
            return await handler(strict_request)

        return strict


def strict_json(body: bytes) -> Any:
    """The value of a JSON text. Raises json.JSONDecodeError with a reason."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("The body is not UTF-8", "", error.start) from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        reason = "Nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise json.JSONDecodeError(reason, "", 0) from None
    problem = _problem(value)
    if problem:
        raise json.JSONDecodeError(problem, "", 0)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _problem(value: Any) -> str:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                if not each.isascii() and not _encodable(each):
                    return "Text holds half a surrogate pair"
            elif isinstance(each, dict):
                fields = cast("dict[str, Any]", each)
                if not all(key.isascii() or _encodable(key) for key in fields):
                    return "A name holds half a surrogate pair"
                below.extend(fields.values())
            elif isinstance(each, list):
                below.extend(cast("list[Any]", each))
            elif isinstance(each, float):
                if not math.isfinite(each):
                    return "A number is too large"
            elif isinstance(each, int) and abs(each) >= 2**63:
                return "A number is too large"
        if not below:
            return ""
        level = below
    return f"Nested deeper than {MAX_DEPTH} levels"


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
