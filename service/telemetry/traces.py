"""Traces over OTLP, off unless an endpoint is given.

    traces = Traces.to("http://collector:4318", service="agent-loop")
    with traces.span(names.SPAN_CHAT, {names.ATTR_MODEL: "gemma3n"}) as span:
        span.set(names.ATTR_OUTPUT_TOKENS, 42)

`span` is for a block in one task. `begin` is for what starts and ends in different places (a stream): whoever got it
calls `end`. A request's `traceparent` header makes the caller's span the parent of all of it.

A span carries names, sizes and outcomes. It never carries messages, tool arguments or results, unless
`capture_content` was asked for (the conventions' OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.telemetry import names

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """One open span; writing to it costs nothing when traces are off."""

    _span: trace.Span | None = None

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def fail(self, kind: str) -> None:
        """Mark the span as failed with a short, low-cardinality kind (never an exception's text)."""
        if self._span is not None:
            self._span.set_attribute(names.ATTR_ERROR, kind)
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, kind))

    def end(self) -> None:
        """Close a span that `begin` opened."""
        if self._span is not None:
            self._span.end()

    @property
    def trace_id(self) -> str:
        """The trace's id as 32 hexadecimal digits, for log lines; empty when traces are off."""
        if self._span is None:
            return ""
        return f"{self._span.get_span_context().trace_id:032x}"


class Traces:
    """Makes spans; `Traces()` makes none."""

    def __init__(self, provider: TracerProvider | None = None, *, capture_content: bool = False) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("agent_loop") if provider else None
        self.capture_content = capture_content

    @classmethod
    def to(cls, endpoint: str, *, service: str = "agent-loop", capture_content: bool = False) -> Traces:
        """Traces exported to an OTLP/HTTP collector at `endpoint` (`http://host:4318`)."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        address = endpoint.rstrip("/")
        if not address.endswith("/v1/traces"):
            address += "/v1/traces"
        provider = TracerProvider(resource=Resource.create({"service.name": service}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
        return cls(provider, capture_content=capture_content)

    @classmethod
    def into(cls, exporter: SpanExporter, *, service: str = "agent-loop", capture_content: bool = False) -> Traces:
        """Traces handed to `exporter` at once, for tests."""
        provider = TracerProvider(resource=Resource.create({"service.name": service}))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return cls(provider, capture_content=capture_content)

    def begin(self, name: str, attributes: Mapping[str, Value] | None = None) -> Span:
        """A child of the current span that is not current itself; call its `end`."""
        if self._tracer is None:
            return Span()
        return Span(self._tracer.start_span(name, attributes=dict(attributes or {}), kind=trace.SpanKind.CLIENT))

    @contextmanager
    def request(self, headers: Mapping[str, str]) -> Generator[Span]:
        """The span of an HTTP request, below the caller's own if its headers name one."""
        if self._tracer is None:
            yield Span()
            return
        context = TraceContextTextMapPropagator().extract(headers)
        with self._tracer.start_as_current_span(
            names.SPAN_REQUEST, context=context, kind=trace.SpanKind.SERVER, record_exception=False
        ) as raw:
            yield Span(raw)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Value] | None = None) -> Generator[Span]:
        """A span around a block; an exception passing through marks it with the exception's class name."""
        if self._tracer is None:
            yield Span()
            return
        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes or {}), record_exception=False, set_status_on_exception=False
        ) as raw:
            span = Span(raw)
            try:
                yield span
            except BaseException as error:
                span.fail(type(error).__name__)
                raise

    def close(self) -> None:
        """Send what is left and stop; may wait seconds for a collector that does not answer."""
        if self._provider is not None:
            self._provider.shutdown()
