"""An HTTP server of fixed pages, for programs that ask somebody for a document."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = str | Callable[[bytes], tuple[int, str]]
"""A page's text, or a function from the request's body to status and text."""


class Pages:
    """Serves `pages` (path -> answer) for GET and POST on a free port; a context manager."""

    def __init__(self, pages: Mapping[str, Answer]) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                served.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                answer = pages.get(self.path)
                status, text = (
                    (404, "") if answer is None else (200, answer) if isinstance(answer, str) else answer(body)
                )
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _reply

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1})

    def __enter__(self) -> Pages:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
