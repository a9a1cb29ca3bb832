"""The HTTP server of a session: `POST /query` with Basic authentication, the session's token as user."""

from __future__ import annotations

import base64
import hmac
import json
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .errors import SetupError

if TYPE_CHECKING:
    from .session import Session


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, session: Session) -> None:
        self.session = session
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server  # type: ignore[assignment]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        session = self.server.session
        length = self.headers.get("Content-Length") or "0"
        body = self.rfile.read(int(length)) if length.isdecimal() else b""
        wanted = "Basic " + base64.b64encode(f"{session.token}:".encode()).decode()
        if not hmac.compare_digest(self.headers.get("Authorization") or "", wanted):
            self._reply(401, {"errors": [{"message": "This session has another token."}]})
            return
        if self.path.split("?")[0] not in ("/query", "/"):
            self._reply(404, {"errors": [{"message": f"No such path: {self.path}. Queries go to /query."}]})
            return
        try:
            request = _sound(json.loads(body))
            query = request["query"]
            variables = request.get("variables")
            if not isinstance(query, str) or not isinstance(variables, dict | None):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError):
            self._reply(400, {"errors": [{"message": "The body is no JSON object with a query."}]})
            return
        try:
            status, answer = session.answer(query, variables, request.get("operationName"))
        except SetupError as error:
            status, answer = 200, {"errors": [{"message": str(error)}], "data": None}
        except Exception as error:
            import traceback

            traceback.print_exc()
            message = f"internal error: {type(error).__name__}: {error}"
            status, answer = 200, {"errors": [{"message": message}], "data": None}
        self._reply(status, answer)

    def _reply(self, status: int, answer: Mapping[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _sound(value: Any) -> Any:
    """A value of JSON whose texts can be encoded: half of a surrogate pair becomes U+FFFD, as Go reads it."""
    match value:
        case str() if not value.isascii():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_sound(v) for v in value]
        case dict():
            return {_sound(k): _sound(v) for k, v in value.items()}
        case _:
            return value
