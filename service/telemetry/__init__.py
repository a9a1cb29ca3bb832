"""Metrics, logs and traces of the service. `names` holds every metric name; the rest only uses it."""

from service.telemetry.metrics import Metrics
from service.telemetry.traces import Traces

__all__ = ["Metrics", "Traces"]
