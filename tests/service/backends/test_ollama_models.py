"""Ollama's context sizes and models: nothing is cut silently, names keep their tag, what is in memory is told."""

from __future__ import annotations

import pytest

from service.backends.base import (
    ContextTooLong,
    ModelNotFound,
    Sampling,
)
from service.backends.ollama import OllamaBackend, full, short
from tests.fakes.ollama import FakeOllama, Model, Plan
from tests.service.backends.asking import ask, collect, failing

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]


class TestContext:
    async def test_a_long_prompt_is_an_error_not_a_cut(self, ollama: FakeOllama) -> None:
        """It is refused by name, the fake cuts silently unless told not to, as Ollama does."""
        backend = OllamaBackend(ollama.url, num_ctx=256)
        _, problem = await failing(backend, ask("word " * 300))
        assert type(problem) is ContextTooLong
        await backend.aclose()

    async def test_an_answer_that_fills_the_context_says_length(self, ollama: FakeOllama) -> None:
        """It stops at the end of the context instead of forgetting its beginning."""
        backend = OllamaBackend(ollama.url, num_ctx=256)
        ollama.plan(Plan(words=["w "] * 1000))
        finish = (await collect(backend, ask()))[-1].finish
        assert finish is not None
        assert finish.reason == "length"
        assert finish.usage.total_tokens == finish.usage.context_tokens == 256
        await backend.aclose()

    async def test_the_models_own_limit_counts_where_it_is_smaller(self) -> None:
        """Once the models were listed, the share used is of the context that Ollama really gives."""
        async with FakeOllama(models=[Model("small", context=128)]) as ollama:
            backend = OllamaBackend(ollama.url)
            (model,) = await backend.models()
            finish = (await collect(backend, ask(model="small")))[-1].finish
            assert finish is not None
            assert model.context == finish.usage.context_tokens == 128
            await backend.aclose()

    async def test_one_context_size_means_one_load(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """Calls of any kind do not make Ollama load the model again."""
        for sampling in (Sampling(), Sampling(max_tokens=1), Sampling(temperature=1.0)):
            await collect(backend, ask(sampling=sampling))
        assert ollama.loads == 1


class TestModels:
    async def test_ready_knows_the_tag(self) -> None:
        """`tiny` is there as `tiny:latest`; other tags are other models."""
        async with FakeOllama(models=[Model("tiny"), Model("gemma3n:e4b")]) as ollama:
            backend = OllamaBackend(ollama.url)
            await backend.ready("tiny")
            await backend.ready("tiny:latest")
            await backend.ready("gemma3n:e4b")
            with pytest.raises(ModelNotFound, match="ollama pull gemma3n"):
                await backend.ready("gemma3n")
            assert [model.name for model in await backend.models()] == ["tiny", "gemma3n:e4b"]
            await backend.aclose()

    async def test_models_are_asked_about_once(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """`/api/show` is asked again only when the digest changed."""
        await backend.models()
        await backend.models()
        assert [request.path for request in ollama.requests].count("/api/show") == 1
        ollama.models = [Model("gemma3n", digest="cd" * 32, capabilities=("completion",))]
        (model,) = await backend.models()
        assert (model.tools, model.digest) == (False, "sha256:" + "cd" * 32)

    @pytest.mark.parametrize(
        ("name", "long"),
        [("a", "a:latest"), ("a:b", "a:b"), ("host:5000/x/a", "host:5000/x/a:latest"), ("x/a:1", "x/a:1")],
    )
    def test_names(self, name: str, long: str) -> None:
        """A port is no tag; the short form is what people ask for."""
        assert full(name) == long
        assert short(full(name)) == name

    async def test_embeddings(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """One vector an input, in order; an unknown model is named."""
        result = await backend.embed("gemma3n", ["a", "bb"])
        assert [vector[0] for vector in result.vectors] == [0.01, 0.02]
        assert result.prompt_tokens == 4
        with pytest.raises(ModelNotFound):
            await backend.embed("nope", ["a"])

    async def test_what_is_in_memory(self) -> None:
        """`/api/ps` with the share on a GPU."""
        async with FakeOllama(models=[Model("gemma3n", size=100, vram=25)]) as ollama:
            backend = OllamaBackend(ollama.url)
            assert list(await backend.loaded()) == []
            await collect(backend, ask())
            (loaded,) = await backend.loaded()
            assert (loaded.name, loaded.gpu_ratio) == ("gemma3n", 0.25)
            await backend.aclose()
