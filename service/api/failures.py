"""How every error becomes an answer: OpenAI's error body, the right status, and never a stack trace."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.backends.base import (
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendStalled,
    BackendUnavailable,
)
from service.errors import (
    ApiError,
    HttpError,
    InvalidRequest,
    NotFound,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)


def answer(error: ApiError) -> JSONResponse:
    """The response for an error."""
    return JSONResponse(error.body(), error.http_status, error.headers())


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(ApiError, _api)
    app.add_exception_handler(BackendError, _backend)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


async def _api(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return answer(error)


async def _backend(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BackendError)
    return answer(from_backend(error))


async def _validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer(invalid(error.errors()))


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return answer(HttpError(error.status_code, str(error.detail or ""), dict(error.headers or {})))


def invalid(problems: Any) -> InvalidRequest:
    """The first of pydantic's problems, in one sentence, with its place as `param`."""
    first: dict[str, Any] = problems[0] if problems else {}
    # Whether it was the body, the path or the query is clear from the name that follows.
    place = ".".join(str(part) for part in first.get("loc", ())[1:])
    message = str(first.get("msg", "is not valid")).removeprefix("Value error, ")
    if first.get("type") == "json_invalid":
        return InvalidRequest(
            f"The body is not valid JSON: {first.get('ctx', {}).get('error', message)}.", code="json_invalid"
        )
    where = f"'{place}'" if place else "the body"
    more = f" ({len(problems) - 1} more problems.)" if len(problems) > 1 else ""
    return InvalidRequest(
        f"Invalid value at {where[:200]}: {message[:300]}.{more}",
        code="invalid_value",
        param=place[:200] or None,
    )


def from_backend(error: BackendError) -> ApiError:
    """The answer for an error of the model's side that came before the first byte."""
    if isinstance(error, BackendRejected):
        cls = NotFound if error.status == 404 else InvalidRequest
        return cls(error.message, code=error.code, param="model" if cls is NotFound else None)
    if isinstance(error, (BackendUnavailable, BackendOverloaded)):
        return Unavailable(error.message, code=error.code, retry_after=error.retry_after or 2.0)
    cls = UpstreamTimeout if isinstance(error, BackendStalled) else UpstreamError
    return cls(error.message, code=error.code)
