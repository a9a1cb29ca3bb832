"""Traces: nested spans with conventional names, errors as kinds, nothing at all when off."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Script, Turn
from service.telemetry import names
from service.telemetry.traces import Traces
from tests.fakes.server import serving

pytestmark = [pytest.mark.in_image, pytest.mark.long]


class TestSpans:
    def test_spans_nest_and_carry_attributes(self) -> None:
        """A model call inside a run is the run's child, with what was set on it."""
        exporter = InMemorySpanExporter()
        traces = Traces.into(exporter)
        with traces.span(names.SPAN_RUN, {names.ATTR_RUN: "run_1"}) as run:
            with traces.span(names.SPAN_CHAT, {names.ATTR_MODEL: "m"}) as chat:
                chat.set(names.ATTR_OUTPUT_TOKENS, 7)
            assert len(run.trace_id) == 32
        chat_span, run_span = exporter.get_finished_spans()
        assert chat_span.parent is not None
        assert run_span.context is not None
        assert chat_span.parent.span_id == run_span.context.span_id
        assert chat_span.attributes == {"gen_ai.request.model": "m", "gen_ai.usage.output_tokens": 7}

    def test_an_exception_marks_its_kind_and_hides_its_text(self) -> None:
        """The span has `error.type`; the message, which may hold content, is nowhere in it."""
        exporter = InMemorySpanExporter()
        traces = Traces.into(exporter)
        with pytest.raises(ValueError), traces.span(names.SPAN_TOOL):
            raise ValueError("what the user said")
        (span,) = exporter.get_finished_spans()
        assert span.attributes == {"error.type": "ValueError"}
        assert "what the user said" not in span.to_json()

    def test_off_makes_nothing(self) -> None:
        """Without an endpoint spans are free and have no trace id."""
        with Traces().span(names.SPAN_RUN) as span:
            span.set(names.ATTR_RUN, "x")
            span.fail("y")
            assert span.trace_id == ""

    def test_spans_reach_a_collector(self) -> None:
        """With an endpoint, closing sends the spans to /v1/traces as protobuf."""
        seen: list[tuple[str, str, bytes]] = []

        class Collector(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.append((self.path, self.headers["Content-Type"], body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        server = HTTPServer(("127.0.0.1", 0), Collector)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            traces = Traces.to(f"http://127.0.0.1:{server.server_port}")
            with traces.span(names.SPAN_RUN, {names.ATTR_RUN: "run_77"}):
                pass
            traces.close()
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        (path, content_type, body) = seen[0]
        assert (path, content_type) == ("/v1/traces", "application/x-protobuf")
        assert b"run_77" in body or body[:2] == b"\x1f\x8b"


SCRIPT = Script.of(Turn(calls=(Call("calculator", {"expression": "6*7"}),)), Turn(text="It is ${tool}, Ada."))
PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


async def spans_of(folder: Path, *, capture_content: bool = False) -> dict[str, list[ReadableSpan]]:
    """The spans of one run with a tool, by name."""
    exporter = InMemorySpanExporter()
    traces = Traces.into(exporter, capture_content=capture_content)
    async with serving(folder, ScriptedBackend(SCRIPT), traces=traces) as server:
        await server.client.get("/health")
        await server.client.post("/v1/runs", json={"input": "I am Ada. 6*7?"}, headers={"traceparent": PARENT})
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


@pytest.mark.anyio
class TestARun:
    async def test_its_spans_hang_together(self, tmp_path: Path) -> None:
        """The caller's trace holds the request, below it the run, below that its model and tool calls."""
        spans = await spans_of(tmp_path)
        assert {name: len(each) for name, each in spans.items()} == {
            "request": 1,
            "invoke_agent": 1,
            "chat": 2,
            "execute_tool": 1,
        }
        [request], [run], chats, [tool] = (spans[each] for each in ("request", "invoke_agent", "chat", "execute_tool"))
        assert request.parent is not None
        assert f"{request.parent.span_id:016x}" == "b" * 16
        assert {f"{span.context.trace_id:032x}" for each in spans.values() for span in each} == {"a" * 32}
        assert run.parent == request.context
        assert all(span.parent == run.context for span in (*chats, tool))
        assert dict(request.attributes or {}) == {
            "http.route": "/v1/runs",
            "http.request.method": "POST",
            "http.response.status_code": 200,
        }
        assert (run.attributes or {})["agent_loop.outcome"] == "completed"
        assert (chats[0].attributes or {})["gen_ai.usage.output_tokens"] > 0
        assert (tool.attributes or {})["gen_ai.tool.name"] == "calculator"

    @pytest.mark.parametrize("captured", [False, True])
    async def test_words_are_in_them_only_on_request(self, tmp_path: Path, captured: bool) -> None:
        """`capture_content` puts messages on the model's spans; without it no word of anybody is in any span."""
        spans = await spans_of(tmp_path, capture_content=captured)
        text = "".join(span.to_json() for each in spans.values() for span in each)
        assert ("I am Ada" in text, "42, Ada" in text) == (captured, captured)
