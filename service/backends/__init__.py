"""What runs models, behind one protocol (`base.Backend`). `create` makes the one that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.backends.base import Backend
    from service.settings import Settings
    from service.telemetry import Metrics, Traces

__all__ = ["create"]


def create(settings: Settings, metrics: Metrics | None = None, traces: Traces | None = None) -> Backend:
    """The configured backend; its calls are counted in `metrics` and shown in `traces`. Raises StartupError."""
    # Imported on use: `service.errors` needs `backends.base`, and the backends need `service.errors`.
    from service.backends.configured import create as configured

    return configured(settings, metrics, traces)
