"""The error answers in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What is wrong: a sentence, its kind, where, and a code for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every error answer."""

    error: ErrorDetail


_TEXT = {
    400: "The request is wrong",
    401: "No valid API key",
    403: "The key may not do this",
    404: "No such thing",
    409: "It does not fit the present state",
    413: "The body is too large",
    429: "The key's own limit is reached",
    502: "The model's side failed",
    503: "Not now: overload, or a part is down",
    504: "The model's side went silent",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text} for status, text in _TEXT.items()
}
