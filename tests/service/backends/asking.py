"""Asking a backend in tests: one request, and all that it answers."""

from __future__ import annotations

from typing import Any

import pytest

from service.backends.base import Backend, BackendError, ChatRequest, Delta, Message


def ask(text: str = "hi", **fields: Any) -> ChatRequest:
    return ChatRequest(fields.pop("model", "gemma3n"), (Message("user", text),), **fields)


async def collect(backend: Backend, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in backend.chat(request)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def failing(backend: Backend, request: ChatRequest) -> tuple[str, BackendError]:
    """The text that came and the error that ended it."""
    seen: list[Delta] = []

    async def run() -> None:
        async for delta in backend.chat(request):
            seen.append(delta)

    with pytest.raises(BackendError) as error:
        await run()
    return text(seen), error.value
