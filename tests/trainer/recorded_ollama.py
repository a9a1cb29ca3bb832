"""Ollama as deployment and plans meet it: a server that keeps blobs and names, and answers as a real one answered.

    with RecordedOllama() as ollama:          # ollama.url
        ollama.fail("create_not_gguf")        # the next create ends as this exchange did
        …
        ollama.names["agent-loop"]            # the digest that the name stands for
        ollama.holds["gemma3n:latest"] = 7 << 30   # bytes of a card that a loaded model takes

Every status and body is taken from `recordings/ollama_deploy.jsonl`, exchanges with Ollama 0.24.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings" / "ollama_deploy.jsonl"


@cache
def recorded(name: str) -> dict[str, Any]:
    """The exchange of this name."""
    return next(r for line in RECORDINGS.read_text().splitlines() if (r := json.loads(line))["name"] == name)


class RecordedOllama:
    """The server; a context manager. `sent` lists what came as (method, path, parsed body)."""

    def __init__(self) -> None:
        self.blobs: set[str] = set()
        self.names: dict[str, str] = {}
        self.sent: list[tuple[str, str, Any]] = []
        self.holds: dict[str, int] = {}
        self.on_unload: Callable[[str], None] = lambda name: None
        """Hears which model leaves; it is listed once more after that, as a real one was."""
        self._leaving: list[str] = []
        self.answer: str | None = None
        """The text of the next chats; None: as recorded."""
        self._failures: dict[str, str] = {}

    def fail(self, name: str) -> None:
        """Let the next request to the exchange's path end as the exchange did."""
        path = recorded(name)["request"]["path"]
        self._failures["/api/blobs" if path.startswith("/api/blobs") else path] = name

    def __enter__(self) -> RecordedOllama:
        ollama = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                ollama._serve(self)

            do_POST = do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        raw = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        kind, _, digest = request.path.partition("/sha256:")
        body = raw if kind == "/api/blobs" else json.loads(raw) if raw else None
        self.sent.append((request.command, request.path, body))
        failure = None if request.command == "HEAD" else self._failures.pop(kind, None)
        reply = recorded(failure or self._act(request.command, kind, digest, body))
        lines = reply.get("chunks")
        said = dict(reply["body"]) if isinstance(reply.get("body"), dict) else None
        if said and kind == "/api/chat" and self.answer is not None:
            said["message"] = {**said["message"], "content": self.answer}
        if said and kind == "/api/ps":
            said["models"] = [said["models"][0] | m for m in self._listed()] if said["models"] else []
        content = (
            "".join(json.dumps(line["json"]) + "\n" for line in lines) if lines else json.dumps(said) if said else ""
        )
        request.send_response(reply["status"])
        for key, value in reply["headers"].items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(content.encode())))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content.encode())

    def _listed(self) -> list[dict[str, Any]]:
        listed = self.holds | dict.fromkeys(self._leaving, 0)
        self._leaving.clear()
        return [{"name": name, "model": name, "size": size, "size_vram": size} for name, size in listed.items()]

    def _act(self, method: str, path: str, digest: str, body: Any) -> str:
        """Do what was asked; returns the exchange that such a request had."""
        if path == "/api/blobs":
            if method == "HEAD":
                return "blob_head_present" if digest in self.blobs else "blob_head_missing"
            if hashlib.sha256(body).hexdigest() != digest:
                return "blob_post_wrong_digest"
            self.blobs.add(digest)
            return "blob_post"
        if path == "/api/create":
            (digest,) = body["files"].values()
            assert digest.removeprefix("sha256:") in self.blobs
            self.names[body["model"]] = digest
            return "create_q8_0_stream"
        if path == "/api/copy":
            if body["source"] not in self.names:
                return "copy_unknown_model"
            self.names[body["destination"]] = self.names[body["source"]]
            return "copy"
        if path == "/api/show":
            return "final_modelfile_show" if body["model"] in self.names else "show_unknown_model"
        if path == "/api/ps":
            return "ps_after_load" if self.holds else "ps_after_unload" if self._leaving else "ps_empty"
        if path == "/api/generate":
            assert body == {"model": body["model"], "keep_alive": 0}
            del self.holds[body["model"]]
            self._leaving.append(body["model"])
            self.on_unload(body["model"])
            return "generate_keep_alive_0_unload"
        return {"/api/chat": "final_modelfile_chat", "/api/version": "version"}[path]
