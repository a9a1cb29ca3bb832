"""The outermost ASGI layer: arrival time, ids in the headers, HTTP metrics, and a last net under every error.

Pure ASGI: a `BaseHTTPMiddleware` costs more than the rest of a relay together and hides disconnects.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from typing import Any, cast

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ApiError, BodyTooLarge
from service.telemetry import Metrics, Traces, names
from service.telemetry.logs import bound
from service.telemetry.traces import Span

log = structlog.get_logger("service.http")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_TRACES = Traces()
UNMATCHED = "unmatched"
"""The route label of a path that no route has: never the path itself."""


class Edge:
    """Wraps the application; `scope["state"]["arrival"]` becomes `time.monotonic()` at arrival."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: Traces, variant: str, max_body: int) -> None:
        self.app = app
        self._metrics = metrics
        self._traces = traces
        self._variant = variant
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arrival = time.monotonic()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else "req_" + secrets.token_hex(8)
        # A new dictionary: the server shares one `state` among all requests.
        state: dict[str, Any] = {**scope.get("state", {}), "arrival": arrival, "request_id": request_id}
        scope["state"] = state
        status = 0
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._max_body:
                    raise self._too_large()
            return message

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Variant"] = self._variant
                for name, value in (("X-Session-Id", state.get("session_id")), ("X-Run-Id", state.get("run_id"))):
                    if value:
                        headers[name] = value
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        failure = ""
        # Probes, scrapes and the page's files would be most of all traces.
        traces = self._traces if scope["path"].startswith("/v1/") else _NO_TRACES
        with (
            self._metrics.active(names.HTTP_ACTIVE),
            traces.request(dict(Headers(scope=scope))) as span,
            bound(request_id=request_id),
        ):
            try:
                if _length(scope) > self._max_body:
                    await _answer(self._too_large(), counted)
                else:
                    await self.app(scope, bounded, counted)
            except Exception as error:
                failure = type(error).__name__
                log.exception("request.failed", path=scope["path"])
                if status == 0:
                    await _answer(ApiError("Something went wrong in the service. Try again later."), counted)
            finally:
                self._observe(scope, status, failure, time.monotonic() - arrival, span)

    def _too_large(self) -> ApiError:
        return BodyTooLarge(f"The body is too large: at most {self._max_body} bytes are taken. Send less.")

    def _observe(self, scope: Scope, status: int, failure: str, seconds: float, span: Span) -> None:
        route = str(getattr(cast("Any", scope.get("route")), "path", UNMATCHED))
        method = _method(scope["method"])
        status = status or 499  # the client left before there was an answer (nginx's number for it)
        error = failure or (str(status) if status >= 500 else "")
        self._metrics.observe(
            names.HTTP_DURATION,
            seconds,
            http_route=route,
            http_request_method=method,
            http_response_status_code=str(status),
            error_type=error,
        )
        span.set(names.ATTR_HTTP_ROUTE, route)
        span.set(names.ATTR_HTTP_METHOD, method)
        span.set(names.ATTR_HTTP_STATUS, status)
        if error:
            span.fail(error)


def _length(scope: Scope) -> int:
    text = Headers(scope=scope).get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _method(method: str) -> str:
    known = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
    return method if method in known else "_OTHER"


async def _answer(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
