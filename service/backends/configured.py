"""Which backend the settings mean, put together with metrics, retries and a fallback.

`auto` is Ollama if something listens at its address, else llama.cpp if a GGUF file is given, else Ollama (which may
come up later: `/ready` says so meanwhile).
"""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import structlog

from service.backends.base import Backend
from service.backends.observed import Observed
from service.backends.ollama import OllamaBackend
from service.backends.openai import OpenAIBackend
from service.backends.resilience import Fallback, Resilient
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import DEMO, Script
from service.backends.transport import Timeouts
from service.backends.watch import OllamaWatch
from service.errors import StartupError
from service.settings import Settings
from service.telemetry import Metrics, Traces

log = structlog.get_logger(__name__)


def create(settings: Settings, metrics: Metrics | None = None, traces: Traces | None = None) -> Backend:
    """The configured backend; its calls are counted in `metrics` and shown in `traces`. Raises StartupError."""
    kind = _choose(settings) if settings.backend == "auto" else settings.backend
    backend: Backend
    match kind:
        case "scripted":
            script = Script.read(settings.script) if settings.script else DEMO
            backend = ScriptedBackend(script, parallelism=settings.parallelism or 8)
        case "ollama":
            backend = _ollama(settings, metrics)
        case "llamacpp":
            backend = _llamacpp(settings)
        case _:
            backend = _openai(settings)
    counted = Observed(backend, metrics, traces) if metrics else backend
    fallback = None
    if settings.fallback_model:
        fallback = Fallback(counted, settings.fallback_model, settings.model)
    return Resilient(counted, retries=settings.retries, fallback=fallback, metrics=metrics)


def timeouts(settings: Settings) -> Timeouts:
    """The settings' limits for a backend."""
    return Timeouts(settings.connect_timeout, settings.first_byte_timeout, settings.stall_timeout)


def _ollama(settings: Settings, metrics: Metrics | None) -> Backend:
    backend = OllamaBackend(
        settings.ollama_url,
        num_ctx=settings.num_ctx,
        keep_alive=settings.keep_alive,
        parallelism=settings.parallelism,
        timeouts=timeouts(settings),
    )
    if metrics is not None and _in_loop():
        backend.attach(OllamaWatch(backend, metrics))
    return backend


def _llamacpp(settings: Settings) -> Backend:
    from service.backends.llamacpp import LlamaCppBackend  # loads 100 MB of library

    if settings.gguf is None:
        raise StartupError("The llama.cpp backend has no model.", "Set AGENT_LOOP_GGUF to a GGUF file.")
    return LlamaCppBackend(
        settings.gguf,
        model=settings.model,
        num_ctx=settings.num_ctx,
        parallelism=settings.parallelism,
        timeouts=timeouts(settings),
    )


def _openai(settings: Settings) -> Backend:
    if settings.openai_url is None:
        raise StartupError(
            "The OpenAI backend has no address.", "Set AGENT_LOOP_OPENAI_URL, such as http://vllm:8000/v1."
        )
    key = settings.openai_api_key
    return OpenAIBackend(
        settings.openai_url,
        api_key=key.get_secret_value() if key else None,
        parallelism=settings.parallelism or 8,
        timeouts=timeouts(settings),
    )


def _choose(settings: Settings) -> str:
    if _listens(settings.ollama_url):
        return "ollama"
    if settings.gguf is not None:
        log.info("backend.llamacpp_instead", reason="no Ollama answers", address=settings.ollama_url)
        return "llamacpp"
    log.warning("backend.ollama_absent", address=settings.ollama_url)
    return "ollama"


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=1.0):
            return True
    except OSError:
        return False


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
