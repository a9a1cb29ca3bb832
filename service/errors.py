"""What can go wrong in the service, and how each shows on the wire.

    StartupError              it does not start: one line on standard error, exit status 2
    ApiError                  an answer with a status and OpenAI's error body
    ├── InvalidRequest        400  the request is wrong: `param` names the place
    ├── Unauthenticated       401
    ├── Forbidden             403
    ├── NotFound              404
    ├── Conflict              409
    ├── BodyTooLarge          413
    ├── LimitReached          429  a key's own limit, with Retry-After
    └── Unavailable           503  everybody's overload, a store or a backend that is down, with Retry-After

The body is `{"error": {"message", "type", "param", "code"}}`, which the `openai` client turns into its exception of
that status. Errors of the model's side are in `service.backends.base`; `service.api.failures.from_backend` maps them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar


class StartupError(Exception):
    """It cannot start. `problem` names value and place, `advice` says what to do."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem} {advice}")


class ApiError(Exception):
    """An error for the client; `message` is safe to show."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: str = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        self.retry_after = retry_after

    @property
    def http_status(self) -> int:
        """The status code it is answered with."""
        return self.status

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {
            "error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code},
        }

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, at least 1, where a repetition makes sense."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, round(self.retry_after + 0.499)))}


class InvalidRequest(ApiError):
    """The request is wrong."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"


class Unauthenticated(ApiError):
    """No key, or not a valid one."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(ApiError):
    """The key may not do this."""

    status = 403
    kind = "permission_error"
    code = "permission_denied"


class NotFound(ApiError):
    """There is no such thing, or it is another key's."""

    status = 404
    kind = "not_found_error"
    code = "not_found"


class Conflict(ApiError):
    """It does not fit the present state."""

    status = 409
    kind = "conflict_error"
    code = "conflict"


class BodyTooLarge(ApiError):
    """More bytes than the service takes."""

    status = 413
    kind = "invalid_request_error"
    code = "content_too_large"


class LimitReached(ApiError):
    """A limit of the caller's own key."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"


class Unavailable(ApiError):
    """Not now, for anybody."""

    status = 503
    kind = "overloaded_error"
    code = "overloaded"


class HttpError(ApiError):
    """Any other status of HTTP's own, such as 405 or 413."""

    kind = "invalid_request_error"

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        phrase = HTTPStatus(status).phrase
        super().__init__(message or phrase, code=phrase.lower().replace(" ", "_").replace("-", "_"))
        self._status = status
        self._headers = headers or {}

    @property
    def http_status(self) -> int:
        return self._status

    def headers(self) -> dict[str, str]:
        return self._headers


class UpstreamError(ApiError):
    """The model's side failed in a way that a repetition may or may not cure."""

    status = 502
    kind = "server_error"
    code = "backend_error"


class UpstreamTimeout(UpstreamError):
    """The model's side went silent."""

    status = 504
