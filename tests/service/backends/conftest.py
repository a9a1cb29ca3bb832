"""A fake Ollama and the backend that speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.backends.ollama import OllamaBackend
from tests.fakes.ollama import FakeOllama


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as fake:
        yield fake


@pytest.fixture
async def backend(ollama: FakeOllama) -> AsyncIterator[OllamaBackend]:
    backend = OllamaBackend(ollama.url, parallelism=4)
    yield backend
    await backend.aclose()
