"""How the jobs of this package show themselves: `/metrics` for Prometheus, `/health` for the container.

page = Page(registry, port=9400, health=lambda: "")     "" is healthy, else the reason
page.start(); ...; page.close()
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from observability.names import Metric


class Series:
    """The families of some metrics in one registry: `series.set(names.GPU_UP, 1)`."""

    def __init__(self, metrics: Iterable[Metric], registry: CollectorRegistry) -> None:
        self._families: dict[str, Gauge | Counter] = {
            metric.name: (Gauge if metric.kind == "gauge" else Counter)(
                metric.name, metric.help, metric.labels, registry=registry
            )
            for metric in metrics
        }

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        family = self._families[metric.name]
        assert isinstance(family, Gauge)
        (family.labels(**labels) if metric.labels else family).set(value)

    def inc(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Add to a counter; 0 makes it appear, so that its first increase can be seen."""
        family = self._families[metric.name]
        (family.labels(**labels) if metric.labels else family).inc(amount)

    def clear(self, metric: Metric) -> None:
        """Forget all labelled series of a metric: what they measured is gone."""
        self._families[metric.name].clear()


class Page:
    """A small HTTP server; with `files` it also serves a folder below `/` (drift reports)."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        port: int,
        host: str = "127.0.0.1",
        health: Callable[[], str] = lambda: "",
        files: Path | None = None,
    ) -> None:
        """Port 0 takes a free one. Raises OSError when the port is taken."""
        self._server = ThreadingHTTPServer((host, port), _handler(registry, health, files))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(
    registry: CollectorRegistry, health: Callable[[], str], files: Path | None
) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif self.path == "/health":
                reason = health()
                body = json.dumps({"status": "unhealthy" if reason else "ok", "reason": reason}).encode()
                self._answer(503 if reason else 200, "application/json", body)
            elif files is None:
                self._answer(404, "text/plain", b"Only /metrics and /health are here.\n")
            else:
                super().do_GET()

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    def made(*arguments: object) -> BaseHTTPRequestHandler:
        return Handler(*arguments, directory=str(files or "/nonexistent"))  # type: ignore[arg-type]

    return made
