"""A fake of everything Prometheus scrapes: each metric that rules and dashboards may read, with plausible labels.

`Exporters()` serves one page a job at `/JOB`; counters and histograms move by one step at each scrape, so that
`rate()` sees something. The service's and our own metrics come from their name tables; those of other exporters are
listed here by hand, from the exporters' own pages (`THIRD_PARTY`).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from observability import names as own
from service.telemetry import names as service

VALUES: dict[str, tuple[str, ...]] = {
    "http_route": ("/v1/runs", "/v1/chat/completions"),
    "http_request_method": ("POST",),
    "http_response_status_code": ("200", "429", "503"),
    "error_type": ("", "timeout"),
    "gen_ai_operation_name": ("chat",),
    "gen_ai_provider_name": ("ollama",),
    "gen_ai_request_model": ("gemma3n:e2b",),
    "gen_ai_token_type": ("input", "output"),
    "gen_ai_agent_name": ("default",),
    "gen_ai_tool_name": ("calculator", "fetch"),
    "outcome": ("completed", "max_steps", "tool_error", "cancelled", "ok", "timeout"),
    "result": ("success", "refused", "failed", "abandoned"),
    "thumbs": ("up", "down"),
    "reason": ("queue_full", "unavailable"),
    "state": ("closed", "open", "half_open"),
    "from": ("ollama",),
    "to": ("llamacpp",),
    "cause": ("client_gone",),
    "kind": ("prompt",),
    "model": ("gemma3n:e2b",),
    "version": ("0.1.0",),
    "revision": ("abc1234",),
    "model_digest": ("sha256:1",),
    "variant": ("stable",),
    "gpu": ("0",),
    "uuid": ("GPU-1",),
    "xid": ("79",),
    "run": ("run-1",),
    "what": ("checkpoints", "service"),
    "feature": ("completion_tokens", "refusal"),
    "method": ("psi", "ks"),
    "set": ("reference", "window"),
    "server": ("agent.example",),
}


@dataclass(frozen=True)
class Family:
    """A metric of somebody else's exporter: job, name, type, label sets, and its value when it is a gauge."""

    job: str
    name: str
    kind: str
    labels: tuple[str, ...] = ("",)
    value: float = 1.0


_DISK = ('device="/dev/vda1",fstype="ext4",mountpoint="/"',)
_CONTAINER = ('name="agent",image="agent-loop"', 'name="ollama",image="ollama"')

OTHERS = (
    Family("agent", "process_cpu_seconds_total", "counter"),
    Family("agent", "process_resident_memory_bytes", "gauge", value=2e8),
    Family("agent", "process_open_fds", "gauge", value=40),
    Family("agent", "process_max_fds", "gauge", value=1024),
    Family("node-exporter", "node_cpu_seconds_total", "counter", ('cpu="0",mode="idle"', 'cpu="0",mode="user"')),
    Family("node-exporter", "node_load1", "gauge"),
    Family("node-exporter", "node_memory_MemAvailable_bytes", "gauge", value=4e9),
    Family("node-exporter", "node_memory_MemTotal_bytes", "gauge", value=8e9),
    Family("node-exporter", "node_pressure_cpu_waiting_seconds_total", "counter"),
    Family("node-exporter", "node_pressure_memory_waiting_seconds_total", "counter"),
    Family("node-exporter", "node_pressure_io_waiting_seconds_total", "counter"),
    Family("node-exporter", "node_filesystem_avail_bytes", "gauge", _DISK, 5e10),
    Family("node-exporter", "node_filesystem_size_bytes", "gauge", _DISK, 1e11),
    Family("node-exporter", "node_disk_read_bytes_total", "counter", ('device="vda"',)),
    Family("node-exporter", "node_disk_written_bytes_total", "counter", ('device="vda"',)),
    Family("node-exporter", "node_network_receive_bytes_total", "counter", ('device="eth0"',)),
    Family("node-exporter", "node_network_transmit_bytes_total", "counter", ('device="eth0"',)),
    Family("cadvisor", "container_cpu_usage_seconds_total", "counter", _CONTAINER),
    Family("cadvisor", "container_cpu_cfs_throttled_periods_total", "counter", _CONTAINER),
    Family("cadvisor", "container_cpu_cfs_periods_total", "counter", _CONTAINER),
    Family("cadvisor", "container_memory_working_set_bytes", "gauge", _CONTAINER, 1e9),
    Family("cadvisor", "container_spec_memory_limit_bytes", "gauge", _CONTAINER, 2e9),
    Family("cadvisor", "container_oom_events_total", "counter", _CONTAINER),
    Family("cadvisor", "container_network_receive_bytes_total", "counter", _CONTAINER),
    Family("cadvisor", "container_network_transmit_bytes_total", "counter", _CONTAINER),
    Family("cadvisor", "container_start_time_seconds", "gauge", _CONTAINER, time.time() - 3600),
    Family("alertmanager", "alertmanager_notifications_failed_total", "counter", ('integration="webhook"',)),
    Family("alertmanager", "alertmanager_config_last_reload_successful", "gauge"),
    Family("prometheus", "prometheus_rule_evaluation_failures_total", "counter", ('rule_group="slo"',)),
    Family("prometheus", "prometheus_config_last_reload_successful", "gauge"),
)

SCRAPED = frozenset({"up", "scrape_duration_seconds", "ALERTS"})
"""What Prometheus writes itself."""

THIRD_PARTY = frozenset(family.name for family in OTHERS) | SCRAPED

JOBS = ("agent", "agent-canary", "node-exporter", "cadvisor", "alertmanager", "ops")
"""The pages; `ops` stands for GPU monitor, backup and drift."""

# Gauges whose value has a meaning: ages, limits, states.
_NOW = ("timestamp_seconds",)


def _label_sets(names: tuple[str, ...]) -> Iterator[str]:
    for values in itertools.product(*(VALUES[name] for name in names)):
        yield ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))


def _line(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {value:g}" if labels else f"{name} {value:g}"


def _histogram(metric: service.Metric, labels: str, tick: int) -> Iterator[str]:
    bounds = [*metric.buckets, float("inf")]
    for index, bound in enumerate(bounds):
        le = "+Inf" if bound == float("inf") else f"{bound}"
        yield _line(f"{metric.name}_bucket", f'{labels},le="{le}"' if labels else f'le="{le}"', tick * (index + 1))
    yield _line(f"{metric.name}_count", labels, tick * len(bounds))
    yield _line(f"{metric.name}_sum", labels, tick * sum(metric.buckets))


def page(job: str, tick: int) -> str:
    """The exposition text of one job at its scrape number `tick`."""
    lines: list[str] = []
    if job in ("agent", "agent-canary"):
        for metric in service.METRICS:
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            for labels in _label_sets(metric.labels):
                if metric.kind == "histogram":
                    lines += _histogram(metric, labels, tick)
                else:
                    lines.append(_line(metric.name, labels, tick if metric.kind == "counter" else 1))
    if job == "ops":
        for mine in own.METRICS:
            lines.append(f"# TYPE {mine.name} {mine.kind}")
            value = time.time() if mine.name.endswith(_NOW) else 2 if mine is own.DRIFT_LEVEL else 1
            for labels in _label_sets(mine.labels):
                lines.append(_line(mine.name, labels, tick if mine.kind == "counter" else value))
    for family in OTHERS:
        if family.job == job or (family.job == "agent" and job == "agent-canary"):
            lines.append(f"# TYPE {family.name} {family.kind}")
            for labels in family.labels:
                lines.append(_line(family.name, labels, tick if family.kind == "counter" else family.value))
    return "\n".join(lines) + "\n"


class Exporters:
    """The HTTP server of all pages; a context manager."""

    def __init__(self) -> None:
        ticks: dict[str, int] = dict.fromkeys(JOBS, 0)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                job = self.path.strip("/")
                if job not in ticks:
                    self.send_error(404)
                    return
                ticks[job] += 1
                body = page(job, ticks[job]).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1})

    def __enter__(self) -> Exporters:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
