"""The service's Prometheus metrics: made from `names.METRICS`, counted with three verbs, read as one page.

    metrics = Metrics()
    metrics.inc(names.RUNS, outcome=Outcome.COMPLETED)
    metrics.observe(names.RUN_DURATION, 1.8, gen_ai_agent_name="default", error_type="")
    body, content_type = metrics.expose(accept="text/plain")

With several worker processes set `PROMETHEUS_MULTIPROC_DIR` before Python starts (prometheus_client reads it
on import): every worker then writes into that folder and any of them answers with the sum.
`multiprocess.prepare` empties the folder, `Metrics.close` takes a worker's gauges out of it. Exemplars and
process metrics exist only with one worker.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import multiprocess as prometheus_multiprocess
from prometheus_client.exposition import choose_encoder

from service.telemetry import names
from service.telemetry.names import Metric

MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# Values known beforehand start at 0, so that rate() sees the first event and a panel shows a line, not a
# hole.
_KNOWN: tuple[tuple[Metric, str, Iterable[str]], ...] = (
    (names.RUNS, "outcome", names.Outcome),
    (names.TASKS, "result", names.TaskResult),
    (names.FEEDBACK, "thumbs", names.Thumbs),
    (names.ADMISSION_REJECTED, "reason", names.RejectReason),
    (names.UPSTREAM_ATTEMPTS, "outcome", names.Attempt),
    (names.UPSTREAM_ABORTS, "cause", names.AbortCause),
    (names.CIRCUIT, "state", names.CircuitState),
)


class Metrics:
    """All metric families of one process (or, in tests, of one application)."""

    def __init__(self, *, models: Iterable[str] = ()) -> None:
        """`models` are the names allowed as label values; any other becomes `other` (see `model`)."""
        self.directory = os.environ.get(MULTIPROC_VARIABLE) or None
        self._registry = CollectorRegistry()
        self._models = set(models)
        self._families: dict[str, Counter | Gauge | Histogram] = {
            metric.name: _family(metric, self._registry) for metric in names.METRICS
        }
        if self.directory is None:
            ProcessCollector(registry=self._registry)
        for metric, label, values in _KNOWN:
            for value in values:
                self._child(metric, {label: value})
        self.circuit(names.CircuitState.CLOSED)

    def inc(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Add `amount` to a counter or a gauge."""
        self._child(metric, labels).inc(amount)

    def dec(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Take `amount` from a gauge."""
        self._child(metric, labels).dec(amount)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._child(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, *, run: str | None = None, **labels: str) -> None:
        """Add an observation to a histogram; `run` becomes its exemplar (the run id is never a label)."""
        exemplar = {"run_id": run} if run and self.directory is None else None
        self._child(metric, labels).observe(max(value, 0.0), exemplar)

    @contextmanager
    def active(self, metric: Metric, **labels: str) -> Generator[None]:
        """Count a gauge up for the time of a `with` block."""
        self.inc(metric, 1, **labels)
        try:
            yield
        finally:
            self.dec(metric, 1, **labels)

    def circuit(self, state: names.CircuitState) -> None:
        """Show `state` as the circuit breaker's only current one."""
        for each in names.CircuitState:
            self.set(names.CIRCUIT, 1.0 if each is state else 0.0, state=each)

    def allow_models(self, models: Iterable[str]) -> None:
        """Let these model names be label values from now on."""
        self._models.update(models)

    def model(self, name: str) -> str:
        """`name` if it may be a label value, else `other`: clients must not be able to create series."""
        return name if name in self._models else names.OTHER_MODEL

    def forget(self, metric: Metric, **labels: str) -> None:
        """Drop one labelled series, such as that of a model that was unloaded (set to 0 with several
        workers).
        """
        if self.directory is not None:
            self.set(metric, 0.0, **labels)
            return
        family = self._families[metric.name]
        try:
            family.remove(*(labels[label] for label in metric.labels))
        except KeyError:
            return

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """The page for a scrape and its content type, in the format that the `Accept` header asks for."""
        encode, content_type = choose_encoder(accept)
        registry = self._registry
        if self.directory is not None:
            registry = CollectorRegistry()
            prometheus_multiprocess.MultiProcessCollector(registry, path=self.directory)
        return encode(registry), content_type

    def value(self, metric: Metric, **labels: str) -> float:
        """The present value of a counter or gauge, or a histogram's number of observations; 0 if never
        touched.
        """
        suffix = "_count" if metric.kind == "histogram" else ""
        return self._registry.get_sample_value(metric.name + suffix, {k: str(v) for k, v in labels.items()}) or 0.0

    def close(self) -> None:
        """Call when the process ends: its live gauges leave the sum of all workers."""
        if self.directory is not None:
            prometheus_multiprocess.mark_process_dead(os.getpid(), self.directory)  # pyright: ignore[reportUnknownMemberType]

    def _child(self, metric: Metric, labels: Mapping[str, str]) -> Any:
        family = self._families[metric.name]
        if not metric.labels:
            return family
        # An optional label left out is the empty string, which Prometheus treats as absent.
        return family.labels(*(str(labels.get(label, "")) for label in metric.labels))


def _family(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.help, metric.labels, registry=registry, multiprocess_mode=metric.multiprocess)
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
