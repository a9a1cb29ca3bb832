"""Where alerts land before anybody has a pager: a webhook receiver that appends each alert to a JSONL file.

    POST /page, POST /ticket    an Alertmanager webhook body (version 4); needs the bearer token when one is set
    GET  /alerts                what has arrived, newest last (the last 1000), for a look and for tests
    GET  /health                200

One line an alert: `received`, `receiver`, `status`, `labels`, `annotations`, `startsAt`, `endsAt`.
"""

from __future__ import annotations

import hmac
import json
import threading
from collections import deque
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from observability.rotation import RotatingLines

MAX_BODY = 4 * 1024 * 1024


def lines(receiver: str, body: dict[str, Any], received: datetime) -> list[dict[str, Any]]:
    """The webhook body as one record an alert. Raises KeyError or TypeError when it is no such body."""
    return [
        {
            "received": received.isoformat(timespec="seconds"),
            "receiver": receiver,
            "status": alert["status"],
            "labels": dict(alert["labels"]),
            "annotations": dict(alert.get("annotations", {})),
            "startsAt": alert.get("startsAt"),
            "endsAt": alert.get("endsAt"),
        }
        for alert in body["alerts"]
    ]


class AlertSink:
    """The receiver's HTTP server; `serve()` blocks, `start()` runs it in a thread, `close()` ends it."""

    def __init__(self, file: Path, *, host: str = "127.0.0.1", port: int = 9099, token: str | None = None) -> None:
        """`token`: what `Authorization: Bearer …` must say, or None to take every post. Port 0 takes a free one."""
        self.alerts: deque[dict[str, Any]] = deque(maxlen=1000)
        self._file = RotatingLines(file)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, port), _handler(self, token))

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def record(self, found: list[dict[str, Any]]) -> None:
        """Keep and append these records."""
        with self._lock:
            for line in found:
                self.alerts.append(line)
                self._file.write(json.dumps(line, sort_keys=True))

    def serve(self) -> None:
        """Answer until `close()`."""
        self._server.serve_forever(poll_interval=0.2)

    def start(self) -> None:
        """Answer in a thread of its own."""
        threading.Thread(target=self.serve, daemon=True).start()

    def close(self) -> None:
        """Stop answering and close the file."""
        self._server.shutdown()
        self._server.server_close()
        self._file.close()


def _handler(sink: AlertSink, token: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if token is not None:
                given = self.headers.get("Authorization", "")
                if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                    return self._answer(401, {"error": "Wrong or missing token."})
            size = int(self.headers.get("Content-Length") or 0)
            if size > MAX_BODY:
                return self._answer(413, {"error": f"Body too large: {size} bytes."})
            try:
                found = lines(self.path.strip("/"), json.loads(self.rfile.read(size)), datetime.now(UTC))
            except (ValueError, KeyError, TypeError) as error:
                return self._answer(400, {"error": f"Not an Alertmanager webhook: {error!r}."})
            sink.record(found)
            return self._answer(200, {"recorded": len(found)})

        def do_GET(self) -> None:
            if self.path == "/health":
                return self._answer(200, {"status": "ok"})
            if self.path == "/alerts":
                return self._answer(200, list(sink.alerts))
            return self._answer(404, {"error": f"No such page: {self.path}."})

        def _answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler
