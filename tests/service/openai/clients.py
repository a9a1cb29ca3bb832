"""A service with a script, and the `openai` client that speaks to it: what the files of the client suite share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from tests.fakes.server import Serving, serving

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
FLAT_WEATHER = {"type": "function", **WEATHER["function"], "strict": False}

SCRIPT = Script(
    (
        Rule(
            "weather",
            (Turn(calls=(Call("get_weather", {"city": "Rome"}),)), Turn(text="It is ${tool} in Rome.", pace=0.001)),
        ),
        Rule("sum", (Turn(calls=(Call("calculator", {"expression": "6*7"}),)), Turn(text="It is ${tool}."))),
        Rule("think", (Turn(thinking="Let me see.", text="Seen."),)),
        Rule("break", (Turn(text="one two three", fail="failed", fail_after=2),)),
        Rule("down", (Turn(fail="unavailable"),)),
        Rule("busy", (Turn(fail="overloaded"),)),
        Rule("long", (Turn(fail="context"),)),
        Rule("crash", (Turn(fail="failed"),)),
        Rule("", (Turn(text="Hello there, friend.", pace=0.001),)),
    )
)


@asynccontextmanager
async def client_of(tmp_path: Path, backend: ScriptedBackend | None = None, **settings: Any) -> AsyncGenerator[Any]:
    async with (
        serving(tmp_path, backend or ScriptedBackend(SCRIPT), **settings) as server,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client, server


Shared = tuple[Any, Serving]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def post(server: Serving, path: str, body: dict[str, Any]) -> Any:
    return await server.client.post(path, json=body)
