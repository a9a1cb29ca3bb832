"""Which backend the settings mean, put together with retries, fallback and metrics."""

from __future__ import annotations

from service.backends.base import Backend
from service.backends.scripted import DEMO, Script, ScriptedBackend
from service.errors import StartupError
from service.settings import Settings
from service.telemetry.metrics import Metrics


def create(settings: Settings, metrics: Metrics | None = None) -> Backend:
    """The configured backend; `metrics` is where its calls are counted. Raises StartupError."""
    if settings.backend == "scripted":
        script = Script.read(settings.script) if settings.script else DEMO
        return ScriptedBackend(script, parallelism=settings.parallelism or 8)
    raise StartupError(f"No such backend yet: {settings.backend}.", "Use AGENT_LOOP_BACKEND=scripted.")
