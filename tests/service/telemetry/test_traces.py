"""Traces: nested spans with conventional names, errors as kinds, nothing at all when off."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.telemetry import names
from service.telemetry.traces import Traces

pytestmark = pytest.mark.in_image


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
