"""The whole service on PostgreSQL: two processes on one database, as several hosts would be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from tests.fakes import postgres
from tests.fakes.server import Serving, serving
from tests.fakes.tools import Box, counter
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]

SCRIPT = Script(
    (
        Rule("slow", (Turn(text="word " * 40, pace=0.02),)),
        Rule("", (Turn(calls=(Call("count"),)), Turn(text="It is ${tool}."))),
    )
)


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with postgres.running() as address:
        yield address


@asynccontextmanager
async def process(folder: Path, url: str, **fields: Any) -> AsyncGenerator[Serving]:
    values = {"database_url": url, "lease_seconds": 0.6, **fields}
    async with serving(folder, ScriptedBackend(SCRIPT), Box(counter()), **values) as server:
        yield server


async def test_runs_sessions_and_duplicates(tmp_path: Path, url: str) -> None:
    """A run with a tool, its log read in the other process, its session going on there, duplicates made one."""
    calm = {"lease_seconds": 30.0}  # nothing is to be taken over here, however busy the machine
    async with process(tmp_path, url, **calm) as one, process(tmp_path, url, **calm) as other:
        first = (await one.client.post("/v1/runs", json={"input": "nul \x00 and \U0001f600"})).json()
        assert (first["outcome"], first["output"]) == ("completed", "It is 1.")
        log = (await other.client.get(f"/v1/runs/{first['id']}/events?stream=false")).json()["data"]
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
        body = {"input": "again", "session_id": first["session_id"]}
        assert (await other.client.post("/v1/runs", json=body)).json()["outcome"] == "completed"
        key = {"Idempotency-Key": "k"}
        posts = [each.client.post("/v1/runs", json={"input": "once"}, headers=key) for each in (one, other) * 6]
        assert len({answer.json()["id"] for answer in await asyncio.gather(*posts)}) == 1
        assert (await one.client.delete(f"/v1/sessions/{first['session_id']}")).status_code == 200
        assert (await other.client.get(f"/v1/runs/{first['id']}")).status_code == 404


async def test_a_run_moves_to_the_other_process(tmp_path: Path, url: str) -> None:
    """Released at shutdown, it goes on elsewhere and ends once; cancel requests and keys are shared as well."""
    async with process(tmp_path, url) as other:
        async with process(tmp_path, url, drain_seconds=0.1) as one:
            made = await one.client.post("/v1/runs", json={"input": "slow", "background": True})
            run_id = made.json()["id"]
            await eventually(lambda: len(one.parts.runner.live[run_id].recent) > 4)
        async with asyncio.timeout(60):
            text = (await other.client.get(f"/v1/runs/{run_id}/events")).text
        assert text.count("event: run.ended") == 1
        assert (await other.client.get(f"/v1/runs/{run_id}")).json()["outcome"] == "completed"
