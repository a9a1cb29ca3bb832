"""Looks at what Ollama holds in memory, for metrics that Ollama itself does not export."""

from __future__ import annotations

import asyncio
import contextlib

from service.backends.base import BackendError
from service.backends.ollama import OllamaBackend
from service.telemetry import names
from service.telemetry.metrics import Metrics


class OllamaWatch:
    """Asks `/api/ps` every `every` seconds from `start()` to `aclose()`."""

    def __init__(self, backend: OllamaBackend, metrics: Metrics, *, every: float = 15.0) -> None:
        self._backend, self._metrics, self._every = backend, metrics, every
        self._seen: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ollama-watch")

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Look once."""
        try:
            loaded = await self._backend.loaded()
        except BackendError:
            loaded = None
        self._metrics.set(names.OLLAMA_UP, 0 if loaded is None else 1)
        now: set[str] = set()
        for model in loaded or ():
            # Only names that may be labels: somebody else may use the same Ollama.
            name = self._metrics.model(model.name)
            now.add(name)
            self._metrics.set(names.OLLAMA_LOADED, 1, model=name)
            self._metrics.set(names.OLLAMA_VRAM, model.vram, model=name)
            self._metrics.set(names.OLLAMA_GPU_RATIO, model.gpu_ratio, model=name)
        for name in self._seen - now:
            for metric in (names.OLLAMA_VRAM, names.OLLAMA_GPU_RATIO):
                self._metrics.forget(metric, model=name)
            self._metrics.set(names.OLLAMA_LOADED, 0, model=name)
        self._seen |= now

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every)
