"""Two processes on one store: events, cancel flags, take-over after a crash, release at shutdown.

Both run in the test's own process with owners of their own; real processes and kills are in test_crash.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from service.store.tables import events, runs
from tests.fakes.server import Serving, serving
from tests.fakes.tools import Box, Recorded, counter, sleeper
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]

SCRIPT = Script(
    (
        Rule("slowly", (Turn(text="word " * 60, pace=0.05),)),
        Rule("tools", (Turn(calls=(Call("count"),)), Turn(calls=(Call("sleep"),)), Turn(text="end ${tool}"))),
        Rule("", (Turn(text="Hello."),)),
    )
)


@asynccontextmanager
async def process(folder: Path, *tools: Recorded, **settings: Any) -> AsyncGenerator[Serving]:
    values = {"lease_seconds": 0.6, **settings}
    async with serving(folder, ScriptedBackend(SCRIPT), Box(*tools), **values) as server:
        yield server


async def start(server: Serving, text: str, **fields: Any) -> str:
    answer = await server.client.post("/v1/runs", json={"input": text, "background": True, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def log_of(server: Serving, run_id: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        await server.client.get(f"/v1/runs/{run_id}/events")
    return (await server.client.get(f"/v1/runs/{run_id}/events?stream=false&limit=1000")).json()["data"]


def crash(server: Serving) -> None:
    """What a SIGKILL leaves: work and renewal stop, the lease stays until it runs out."""
    runner = server.parts.runner

    async def nothing(*_: Any) -> None: ...

    server.parts.store.runs.release = nothing  # type: ignore[method-assign]
    for task in runner._background:
        task.cancel()
    for live in runner.live.values():
        live.stop("released")


def whole(log: list[dict[str, Any]]) -> bool:
    """Gapless, one terminal event, and it is the last."""
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    assert [event["type"] for event in log].count("run.ended") == 1
    return log[-1]["type"] == "run.ended"


async def test_events_and_cancel_from_another_process(tmp_path: Path) -> None:
    """A run's events stream from a process that does not work on it, and its cancel request arrives."""
    async with process(tmp_path) as one, process(tmp_path) as other:
        run_id = await start(one, "slowly")
        seen: list[str] = []
        async with other.client.stream("GET", f"/v1/runs/{run_id}/events") as events:
            async for line in events.aiter_lines():
                if line.startswith("event: "):
                    seen.append(line[7:])
                    if seen.count("text.delta") == 2:
                        break
        answer = await other.client.post(f"/v1/runs/{run_id}/cancel")
        assert answer.json()["outcome"] == "cancelled"
        assert whole(await log_of(other, run_id))


async def test_a_session_is_busy_everywhere(tmp_path: Path) -> None:
    """Two processes cannot both run in one session."""
    async with process(tmp_path) as one, process(tmp_path) as other:
        session = (await one.client.post("/v1/sessions")).json()["id"]
        run_id = await start(one, "slowly", session_id=session)
        refused = await other.client.post("/v1/runs", json={"input": "Hi", "session_id": session})
        assert refused.status_code == 409
        await one.client.post(f"/v1/runs/{run_id}/cancel")


async def test_idempotency_across_processes(tmp_path: Path) -> None:
    """Duplicate posts to two processes make one run."""
    async with process(tmp_path) as one, process(tmp_path) as other:
        key = {"Idempotency-Key": "k"}
        posts = [server.client.post("/v1/runs", json={"input": "Hi"}, headers=key) for server in (one, other) * 5]
        ids = {answer.json()["id"] for answer in await asyncio.gather(*posts)}
        assert len(ids) == 1


@pytest.mark.parametrize("idempotent", [False, True])
async def test_take_over_in_mid_tool(tmp_path: Path, idempotent: bool) -> None:
    """After a crash in a tool another process goes on: finished calls stay, the begun one is repeated only if it may
    be, with the same key; the log stays gapless with one end."""
    first = [counter(), sleeper(seconds=60, idempotent=idempotent)]
    again = [counter(), sleeper(seconds=0, idempotent=idempotent)]
    async with process(tmp_path, *first) as one:
        run_id = await start(one, "tools")
        await eventually(lambda: first[1].calls, "the second tool runs")
        crash(one)
        async with process(tmp_path, *again) as other:
            log = await log_of(other, run_id)
            assert whole(log)
            assert len(first[0].calls) == 1
            assert again[0].calls == []
            assert [call.key for call in again[1].calls] == ([first[1].calls[0].key] if idempotent else [])
            output = log[-1]["data"]["output"]
            assert ("slept" in output) if idempotent else ("interrupted" in output)
            started = [event["data"]["id"] for event in log if event["type"] == "tool.started"]
            assert len(started) == len(set(started)) == 2


@pytest.mark.parametrize(("kept", "output"), [("tool.completed", "Hello."), ("step.completed", "Hello.")])
async def test_take_over_between_steps(tmp_path: Path, kept: str, output: str) -> None:
    """A process that died after a tool's result goes on with the next step; one that died after the answer ends."""
    script = Script.of(Turn(text="Wait.", calls=(Call("count"),)), Turn(text="Hello."))
    box = [counter(), counter()]
    async with serving(tmp_path, ScriptedBackend(script), Box(box[0]), lease_seconds=0.6) as one:
        ended = (await one.client.post("/v1/runs", json={"input": "x", "background": True})).json()["id"]
        await log_of(one, ended)
        cut = max(event.seq for event in await one.parts.store.runs.events(ended) if event.type == kept)

        async def rewind(connection: Any) -> None:
            await connection.execute(delete(events).where(events.c.run_id == ended, events.c.seq > cut))
            values = {"status": "running", "outcome": None, "summary": None, "lease_until": 0.0, "next_seq": cut + 1}
            await connection.execute(update(runs).where(runs.c.id == ended).values(**values))

        for task in one.parts.runner._background:
            task.cancel()
        await one.parts.store.database.write(rewind)
        async with serving(tmp_path, ScriptedBackend(script), Box(box[1]), lease_seconds=0.6) as other:
            log = await log_of(other, ended)
            assert whole(log)
            assert (log[-1]["data"]["output"], log[-1]["data"]["steps"]) == (output, 2)
            assert (len(box[0].calls), box[1].calls) == (1, [])


async def test_take_over_in_mid_stream(tmp_path: Path) -> None:
    """A step that broke off is made again from its start; the finished run's text is whole."""
    async with process(tmp_path) as one:
        run_id = await start(one, "slowly")
        await eventually(lambda: len(one.parts.runner.live[run_id].recent) > 6)
        crash(one)
        async with process(tmp_path) as other:
            log = await log_of(other, run_id)
            assert whole(log)
            assert log[-1]["data"]["output"].split() == ["word"] * 60
            assert [e["type"] for e in log].count("step.started") == 2
            assert [e["data"]["attempt"] for e in log if e["type"] == "run.started"] == [1, 2]


async def test_a_run_that_does_not_survive_its_client_ends(tmp_path: Path) -> None:
    """A crash ends an attached run as `interrupted`: its client is gone, and it asked for no more."""
    async with process(tmp_path) as one:
        client = asyncio.create_task(one.client.post("/v1/runs", json={"input": "slowly"}))
        await eventually(lambda: one.parts.runner.live)
        [run_id] = one.parts.runner.live
        await eventually(lambda: len(one.parts.runner.live[run_id].recent) > 3)
        crash(one)
        async with process(tmp_path) as other:
            log = await log_of(other, run_id)
            assert whole(log)
            assert log[-1]["data"]["outcome"] == "interrupted"
        client.cancel()


async def test_a_process_that_lost_its_lease_writes_nothing(tmp_path: Path) -> None:
    """A process that was stopped for long finds its run taken over, and cannot write into its log."""
    async with process(tmp_path, lease_seconds=30) as one:
        run_id = await start(one, "slowly")
        await eventually(lambda: len(one.parts.runner.live[run_id].recent) > 4)
        store = one.parts.store.runs
        await store.release(run_id, one.parts.runner.owner)
        assert await store.claim(run_id, "proc_other", 1e12) is not None
        before = await store.events(run_id)
        await eventually(lambda: run_id not in one.parts.runner.live)
        assert await store.events(run_id) == before


async def test_shutdown_hands_over(tmp_path: Path) -> None:
    """SIGTERM's drain: a background run is released with its finished steps and goes on elsewhere; an attached one
    ends as `interrupted`, and both streams say so."""
    tools = [counter(), sleeper(seconds=60, idempotent=True)]
    async with process(tmp_path, *tools, drain_seconds=0.2) as one:
        kept = await start(one, "tools")
        attached = asyncio.create_task(one.client.post("/v1/runs", json={"input": "slowly", "stream": True}))
        reading = asyncio.create_task(one.client.get(f"/v1/runs/{kept}/events"))
        await eventually(lambda: tools[1].calls)
        await eventually(lambda: len(one.parts.runner.live) == 2)
        one.parts.drain.begin()
        assert '"outcome":"interrupted"' in (await attached).text
        assert "event: stream.error" in (await reading).text
        refused = await one.client.post("/v1/runs", json={"input": "Hi"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "draining"
    async with process(tmp_path, counter(), sleeper(seconds=0, idempotent=True)) as other:
        log = await log_of(other, kept)
        assert whole(log)
        assert log[-1]["data"]["outcome"] == "completed"
