"""The same promises against a real Ollama, where `OLLAMA_HOST` names one that answers.

OLLAMA_HOST=127.0.0.1:11434 AGENT_LOOP_MODEL=gemma3n pytest tests/service/backends/test_real_ollama.py
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from service import backends
from service.settings import Settings, ollama_url
from tests.fakes.server import Serving, serving

HOST = os.environ.get("OLLAMA_HOST", "")
MODEL = os.environ.get("AGENT_LOOP_MODEL", "gemma3n")


def missing() -> str:
    """Why there is nothing to test against; empty if there is."""
    if not HOST:
        return "OLLAMA_HOST names no Ollama"
    try:
        tags = httpx.get(f"{ollama_url(HOST)}/api/tags", timeout=5).json()
    except (httpx.HTTPError, ValueError) as error:
        return f"no Ollama answers at OLLAMA_HOST={HOST}: {error}"
    listed = [each["name"].removesuffix(":latest") for each in tags.get("models", [])]
    wanted = MODEL.removesuffix(":latest")
    return "" if wanted in listed else f"the Ollama at {HOST} does not have AGENT_LOOP_MODEL={MODEL}"


REASON = missing()
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(bool(REASON), reason=REASON)]


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Serving]:
    settings = Settings(backend="ollama", model=MODEL, num_ctx=2048)
    folder = tmp_path_factory.mktemp("ollama")
    async with serving(folder, backends.create(settings), model=MODEL, headers={}) as server:
        yield server


async def run(service: Serving, text: str, **fields: Any) -> dict[str, Any]:
    answer = await service.client.post("/v1/runs", json={"input": text, **fields}, timeout=900)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_it_is_ready(service: Serving) -> None:
    """The model is there, with its digest."""
    assert (await service.client.get("/ready")).status_code == 200
    assert service.parts.runner.variant["model_digest"]


async def test_a_run_answers_with_counts(service: Serving) -> None:
    """Text, tokens read and written, a time to the first token."""
    ended = await run(service, "Say hello in one short sentence.", max_tokens=40)
    assert ended["outcome"] == "completed"
    assert ended["output"].strip()
    assert ended["usage"]["prompt_tokens"] > 0
    assert 0 < ended["usage"]["completion_tokens"] <= 41
    assert ended["ttft"] > 0


async def test_a_tool_is_used(service: Serving) -> None:
    """Natively or by constrained output, as the model's capabilities say; a forced call is made."""
    body = {"tool_choice": "calculator", "tools": ["calculator"], "max_tokens": 200, "limits": {"steps": 3}}
    ended = await run(service, "Use the calculator: what is 123456 * 789?", **body)
    assert ended["protocol"] in ("native", "constrained")
    assert ended["tool_calls"] >= 1


async def test_a_schema_holds(service: Serving) -> None:
    """The answer is JSON of the schema."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    ended = await run(service, "Name one city.", output_schema=schema, max_tokens=100)
    assert '"city"' in ended["output"]


async def test_a_long_prompt_is_refused(service: Serving) -> None:
    """Not cut: the run says that it did not fit."""
    ended = await run(service, "word " * 6000, max_tokens=5)
    assert ended["outcome"] == "model_error"
    assert ended["error"]["code"] == "context_length_exceeded"


async def test_cancelling_frees_the_model(service: Serving) -> None:
    """After a cancel in mid-answer the next run begins at once instead of waiting for the rest."""
    body = {"input": "Count from 1 to 500 in words.", "background": True}
    run_id = (await service.client.post("/v1/runs", json=body)).json()["id"]
    async with service.client.stream("GET", f"/v1/runs/{run_id}/events", timeout=900) as events:
        async for line in events.aiter_lines():
            if line == "event: text.delta":
                break
    assert (await service.client.post(f"/v1/runs/{run_id}/cancel", timeout=60)).json()["outcome"] == "cancelled"
    async with asyncio.timeout(300):
        assert (await run(service, "Say hi.", max_tokens=5))["output"]


async def test_the_openai_client_streams(service: Serving) -> None:
    """The same model as a plain relay."""
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", timeout=900) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Say hi."}], max_tokens=20, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).strip()
    assert chunks[-1].usage is not None
