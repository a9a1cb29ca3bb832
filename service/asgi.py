"""What an ASGI server loads: `uvicorn --factory service.asgi:create`, settings from the environment."""

from __future__ import annotations

from fastapi import FastAPI

from service import settings as configuration
from service.app import create_app
from service.telemetry import logs


def create() -> FastAPI:
    """Read the settings, set up logging, make the application."""
    settings = configuration.load()
    logs.configure(settings.log_level, settings.log_format, capture_content=settings.capture_content)
    return create_app(settings)
