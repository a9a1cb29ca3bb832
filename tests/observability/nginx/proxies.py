"""A real nginx and the upstreams behind it, for these tests."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from observability.nginx.render import Proxy, Split, write
from tests.fakes.programs import Programs, find, free_port, run

CHUNKS = 5
HTTP = httpx.Client(timeout=30)


class Upstream:
    """A service that says its name, echoes what reached it, and streams at /stream: each event only after the last one
    was acknowledged with `seen`, so that a proxy which holds events back shows itself without a clock."""

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.seen = threading.Semaphore(0)
        self.gave_up = False
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.startswith("/stream"):
                    self._stream(chunked=self.path == "/stream")
                    return
                headers = {key.lower(): value for key, value in self.headers.items()}
                text = json.dumps({"name": name, "path": self.path, "headers": headers, "size": len(body)}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def _stream(self, *, chunked: bool) -> None:
                self.close_connection = not chunked
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header(*("Transfer-Encoding", "chunked") if chunked else ("Connection", "close"))
                self.end_headers()
                for number in range(CHUNKS):
                    event = f"data: {number}\n\n".encode()
                    self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n" if chunked else event)
                    self.wfile.flush()
                    if not upstream.seen.acquire(timeout=5):
                        upstream.gave_up = True
                if chunked:
                    self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST = _reply

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1})
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def start(programs: Programs, proxy: Proxy, split: Split | None = None, *, scheme: str = "http") -> str:
    """Write the configuration, let nginx check it, start it; returns its address."""
    folder = Path(proxy.folder)
    write(proxy, folder, split)
    nginx = find("nginx", "nginx")
    # Started by root it would give its files to `nobody`, who may not enter this test's folder.
    command = [nginx, "-c", f"{folder}/nginx.conf", "-e", "stderr", "-g", "daemon off; user root;"]
    run(*command[:-1], "user root;", "-t")
    url = f"{scheme}://127.0.0.1:{proxy.https_port if scheme == 'https' else proxy.http_port}"
    programs.start(command, f"{url}/health")
    return url


def reload(proxy: Proxy, url: str, wanted: str) -> None:
    """Reload nginx and wait until a session of the canary's goes to `wanted`."""
    nginx = find("nginx", "nginx")
    run(nginx, "-c", f"{proxy.folder}/nginx.conf", "-e", "stderr", "-g", "user root;", "-s", "reload")
    deadline = time.monotonic() + 20
    while served_by(url, "sess_canary_00") != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)  # old workers stop accepting


def served_by(url: str, session: str) -> str:
    """Which upstream answers a request of this session."""
    return HTTP.get(f"{url}/v1/runs", headers={"X-Session-Id": session}).json()["name"]


def shares(url: str, count: int = 600) -> Counter[str]:
    """How many of `count` new sessions go where."""
    return Counter(HTTP.post(f"{url}/v1/sessions").json()["name"] for _ in range(count))


def start_without_health(programs: Programs, proxy: Proxy) -> str:
    """Start a proxy whose service is not there: ready is what nginx answers itself."""
    folder = Path(proxy.folder)
    write(proxy, folder)
    command = [find("nginx", "nginx"), "-c", f"{folder}/nginx.conf", "-e", "stderr", "-g", "daemon off; user root;"]
    url = f"http://127.0.0.1:{proxy.http_port}"
    programs.start(command, f"{url}/metrics")
    return url


def elsewhere(proxy: Proxy, folder: Path, **changes: object) -> Proxy:
    """The same proxy in another folder and on another port, with changes."""
    return replace(proxy, **{"folder": str(folder), "temp": str(folder), "http_port": free_port(), **changes})
