"""llama.cpp in process on a real (random, tiny) GGUF: streams, limits, schemas, aborts, and nobody else gets in."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import validate

from service.backends import create
from service.backends.base import (
    Backend,
    BackendFailed,
    BackendRejected,
    ChatRequest,
    ContextTooLong,
    Delta,
    Message,
    ModelNotFound,
    Sampling,
)
from service.backends.llamacpp import LlamaCppBackend
from service.errors import StartupError
from service.settings import Settings
from tests.fakes import tiny_gguf

pytestmark = [pytest.mark.anyio]

GREEDY = Sampling(temperature=0.0, max_tokens=12)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
async def backend(gguf: Path) -> AsyncIterator[LlamaCppBackend]:
    backend = LlamaCppBackend(gguf, model="demo", num_ctx=512, parallelism=1, threads=1)
    yield backend
    await backend.aclose()


def ask(text: str = "hello", **fields: Any) -> ChatRequest:
    return ChatRequest(fields.pop("model", "tiny"), (Message("user", text),), **fields)


async def collect(backend: Backend, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in backend.chat(request)]


class TestModel:
    async def test_it_streams_with_counts(self, backend: LlamaCppBackend) -> None:
        """Several deltas, then the counts, the context and llama.cpp's own timings."""
        deltas = await collect(backend, ask(sampling=GREEDY))
        finish = deltas[-1].finish
        assert len(deltas) > 3
        assert finish is not None
        assert (finish.reason, finish.usage.completion_tokens, finish.usage.context_tokens) == ("length", 12, 512)
        assert finish.usage.prompt_tokens > 5
        assert finish.usage.decode_seconds is not None

    async def test_it_is_one_model_under_two_names(self, backend: LlamaCppBackend) -> None:
        """The file's own name and the configured one; its digest is the file's."""
        demo, tiny = await backend.models()
        assert (demo.name, tiny.name) == ("demo", "tiny")
        assert demo.digest == tiny.digest
        assert len(demo.digest) == 71
        assert not demo.tools
        await backend.ready("demo")
        with pytest.raises(ModelNotFound, match="demo or tiny"):
            await backend.ready("gemma3n")

    async def test_a_schema_constrains_random_weights(self, backend: LlamaCppBackend) -> None:
        """Even a model of noise answers in JSON of the schema."""
        schema = {
            "type": "object",
            "properties": {"answer": {"enum": ["yes", "no"]}},
            "required": ["answer"],
            "additionalProperties": False,
        }
        deltas = await collect(backend, ask(format=schema, sampling=Sampling(temperature=0.0, max_tokens=100)))
        validate(json.loads("".join(delta.text for delta in deltas)), schema)

    async def test_a_long_prompt_is_an_error(self, backend: LlamaCppBackend) -> None:
        """Not a cut."""
        with pytest.raises(ContextTooLong):
            await collect(backend, ask("word " * 600))

    async def test_an_answer_stops_at_the_contexts_end(self, backend: LlamaCppBackend) -> None:
        """With `length`; nothing is shifted out."""
        finish = (await collect(backend, ask(sampling=Sampling(temperature=0.0, seed=3))))[-1].finish
        assert finish is not None
        assert finish.usage.total_tokens <= 512

    async def test_embeddings_are_refused_with_the_way_out(self, backend: LlamaCppBackend) -> None:
        """By name."""
        with pytest.raises(BackendRejected, match="Use Ollama"):
            await backend.embed("tiny", ["a"])


class TestAbort:
    async def test_closing_a_stream_frees_its_slot(self, gguf: Path) -> None:
        """With one slot the next call is served in a small part of the time the abandoned one still needed."""
        backend = LlamaCppBackend(gguf, num_ctx=4096, parallelism=1, threads=1)
        stream: Any = backend.chat(ask(sampling=Sampling(temperature=1.0, max_tokens=4000, seed=1)))
        await anext(stream)
        start = time.monotonic()
        for _ in range(20):
            await anext(stream)
        rest = (time.monotonic() - start) / 20 * 3900
        start = time.monotonic()
        await stream.aclose()
        deltas = await collect(backend, ask(sampling=Sampling(temperature=0.0, max_tokens=1)))
        assert deltas[-1].finish is not None
        assert time.monotonic() - start < rest / 2
        await backend.aclose()

    async def test_cancelling_while_it_waits_frees_it_too(self, backend: LlamaCppBackend) -> None:
        """A task cancelled before its first byte leaves nothing running."""
        with anyio.move_on_after(0.01):
            await collect(backend, ask(sampling=Sampling(max_tokens=480)))
        deltas = await collect(backend, ask(sampling=Sampling(temperature=0.0, max_tokens=1)))
        assert deltas[-1].finish is not None


class TestDoor:
    @pytest.mark.parametrize(
        "path", ["/v1/chat/completions", "/completion", "/props", "/v1/models", "/slots", "/tokenize"]
    )
    async def test_the_loopback_port_needs_the_key(self, backend: LlamaCppBackend, path: str) -> None:
        """Whoever finds the port without our key gets 401, and with a wrong one too."""
        await backend.ready("tiny")
        assert backend.address.startswith("http://127.0.0.1:")
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            request = urllib.request.Request(backend.address + path, data=b"{}", headers=headers)
            with pytest.raises(urllib.error.HTTPError) as error:
                await anyio.to_thread.run_sync(urllib.request.urlopen, request)
            assert error.value.code == 401
            error.value.close()

    async def test_the_port_is_gone_after_closing(self, gguf: Path) -> None:
        """`aclose` stops the server, and returns without waiting for anything."""
        backend = LlamaCppBackend(gguf, num_ctx=256, parallelism=1, threads=1)
        await backend.ready("tiny")
        start = time.monotonic()
        await backend.aclose()
        assert time.monotonic() - start < 30
        with pytest.raises(urllib.error.URLError):
            await anyio.to_thread.run_sync(urllib.request.urlopen, backend.address + "/health")


class TestFiles:
    async def test_a_bad_file_is_named(self, tmp_path: Path) -> None:
        """Missing, not a GGUF file, and a GGUF file that is broken: each with its path."""
        with pytest.raises(StartupError, match="No such file"):
            LlamaCppBackend(tmp_path / "none.gguf")
        text = tmp_path / "text.gguf"
        text.write_text("hello")
        with pytest.raises(StartupError, match="Not a GGUF file"):
            LlamaCppBackend(text)
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(b"GGUF" + b"\0" * 64)
        backend = LlamaCppBackend(broken)
        with pytest.raises(BackendFailed, match=r"broken\.gguf"):
            await backend.ready("broken")
        await backend.aclose()

    async def test_auto_takes_the_file_when_no_ollama_answers(self, gguf: Path) -> None:
        """The embedded default; under the configured model's name."""
        settings = Settings(backend="auto", ollama_url="http://127.0.0.1:1", gguf=gguf, num_ctx=256, parallelism=1)
        backend = create(settings)
        assert backend.name == "llamacpp"
        await backend.ready(settings.model)
        await backend.aclose()

    async def test_it_needs_a_file(self) -> None:
        """The settings say which variable is missing."""
        with pytest.raises(StartupError, match="AGENT_LOOP_GGUF"):
            create(Settings(backend="llamacpp"))
