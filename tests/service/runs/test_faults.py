"""Faults below a run, end to end: a slow, silent, dying or evicted model, a full disk, a clock that jumps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from service import backends
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Script, Turn
from service.settings import Settings
from service.telemetry import names
from tests.fakes.ollama import FakeOllama, Fault, Plan
from tests.fakes.server import Serving, serving
from tests.fakes.tools import Box, Recorded, counter
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]

CALL = Plan(words=(), calls=(("count", {}),))


@asynccontextmanager
async def over_ollama(folder: Path, ollama: FakeOllama, *tools: Recorded, **fields: Any) -> AsyncGenerator[Serving]:
    """The service in front of the fake, with the settings' own retries and time limits."""
    settings = Settings(backend="ollama", model="gemma3n", ollama_url=ollama.url, **fields)
    async with serving(folder, backends.create(settings), Box(*tools), model="gemma3n") as server:
        yield server


async def run(server: Serving, **fields: Any) -> dict[str, Any]:
    answer = await server.client.post("/v1/runs", json={"input": "Hi", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestTheModelsSide:
    async def test_a_slow_model_meets_the_time_limit(self, tmp_path: Path) -> None:
        """A model too slow for the run's wall clock ends it as `max_time` with what came; upstream is closed."""
        async with FakeOllama() as ollama, over_ollama(tmp_path, ollama) as server:
            ollama.plan(Plan(words=("word ",) * 1000, pace=0.05))
            ended = await run(server, limits={"seconds": 1.0})
            assert ended["outcome"] == "max_time"
            assert ended["output"].startswith("word")
            await eventually(lambda: ollama.aborted == 1 and ollama.running == 0)

    async def test_a_silent_model_is_a_stall(self, tmp_path: Path) -> None:
        """A reply that goes silent ends the run as `model_error`, and is counted as a stall."""
        async with FakeOllama() as ollama, over_ollama(tmp_path, ollama, stall_timeout=0.3) as server:
            ollama.plan(Plan(fault=Fault.SILENCE, after=2))
            ended = await run(server)
            assert (ended["outcome"], ended["output"]) == ("model_error", "Hello there")
            assert server.parts.metrics.value(names.RUNS, outcome="model_error") == 1

    @pytest.mark.parametrize("fault", [Fault.CUT, Fault.RESET, Fault.GARBAGE, Fault.ERROR_LINE, Fault.NO_DONE])
    async def test_a_reply_that_breaks(self, tmp_path: Path, fault: Fault) -> None:
        """After the first byte the run keeps what came, says `model_error`, and nothing is asked twice."""
        async with FakeOllama() as ollama, over_ollama(tmp_path, ollama) as server:
            ollama.plan(Plan(fault=fault, after=2))
            ended = await run(server)
            assert (ended["outcome"], ended["output"]) == ("model_error", "Hello there")
            assert len(ollama.chats) == 1
            assert (await run(server))["outcome"] == "completed"

    async def test_a_model_evicted_between_steps(self, tmp_path: Path) -> None:
        """It is loaded again, and the run completes; the loading counts toward the wall clock."""
        async with FakeOllama(load_seconds=0.2) as ollama:

            async def evict(_arguments: Any, _context: Any) -> str:
                ollama._loaded = None
                return "evicted"

            async with over_ollama(tmp_path, ollama, Recorded("count", evict)) as server:
                ollama.plan(CALL, Plan())
                ended = await run(server)
                assert (ended["outcome"], ollama.loads) == ("completed", 2)
                ollama.load_seconds = 30
                ollama.plan(CALL, Plan())
                assert (await run(server, limits={"seconds": 1.5}))["outcome"] == "max_time"

    async def test_a_model_that_is_down(self, tmp_path: Path) -> None:
        """Before the first byte of the first step: 503 with Retry-After, and `/ready` says so; later it works again."""
        async with FakeOllama() as ollama, over_ollama(tmp_path, ollama, retries=1) as server:
            await ollama.stop()
            answer = await server.client.post("/v1/runs", json={"input": "Hi"})
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert (await server.client.get("/ready")).status_code == 503
            await ollama.restart()
            await asyncio.sleep(0)
            assert (await run(server))["outcome"] == "completed"


@contextmanager
def full(server: Serving) -> Generator[None]:
    """No page can be added to the store's file: SQLite's own "database or disk is full"."""
    engine = server.parts.store.database.engine.sync_engine

    def limit(connection: Any, *_: Any) -> None:
        connection.execute("PRAGMA max_page_count=1").close()

    def lift(connection: Any, *_: Any) -> None:
        connection.execute("PRAGMA max_page_count=1073741823").close()

    event.listen(engine, "checkout", limit)
    yield
    event.remove(engine, "checkout", limit)
    event.listen(engine, "checkout", lift)


class TestTheStore:
    async def test_a_full_disk(self, tmp_path: Path) -> None:
        """What cannot be logged is not accepted; a live run stops rather than going on unseen, and is finished when
        there is room again."""
        backend = ScriptedBackend(Script.of(Turn(text="word " * 400, pace=0.01)))
        async with serving(tmp_path, backend, lease_seconds=2) as server:
            alive = (await server.client.post("/v1/runs", json={"input": "x" * 9000, "background": True})).json()["id"]
            await eventually(lambda: len(server.parts.runner.live[alive].recent) > 4)
            with full(server):
                refused = await server.client.post("/v1/runs", json={"input": "y" * 200_000})
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
                assert int(refused.headers["retry-after"]) >= 1
                assert str(tmp_path) not in refused.text
                await eventually(lambda: alive not in server.parts.runner.live)
                assert (await server.client.get(f"/v1/runs/{alive}")).json()["status"] == "running"
            async with asyncio.timeout(60):
                log = await server.client.get(f"/v1/runs/{alive}/events")
            assert log.text.count("event: run.ended") == 1
            ended = (await server.client.get(f"/v1/runs/{alive}")).json()
            assert (ended["outcome"], len(ended["output"].split())) == ("completed", 400)

    async def test_a_read_only_store(self, tmp_path: Path) -> None:
        """Even when no cancel flag can be written, a client that leaves ends its call at the model."""
        backend = ScriptedBackend(Script.of(Turn(text="late", delay=600)))
        async with serving(tmp_path, backend) as server:
            engine = server.parts.store.database.engine.sync_engine
            client = asyncio.create_task(server.client.post("/v1/runs", json={"input": "Hi"}))
            await eventually(lambda: backend.requests and server.parts.admission.gate.active)

            def protect(connection: Any, *_: Any) -> None:
                connection.execute("PRAGMA query_only=ON").close()

            event.listen(engine, "checkout", protect)
            client.cancel()
            await eventually(lambda: backend.aborted == 1)
            event.remove(engine, "checkout", protect)
            event.listen(engine, "checkout", lambda each, *_: each.execute("PRAGMA query_only=OFF").close())


class TestTheClock:
    @pytest.mark.parametrize("jump", [-7200.0, 7200.0])
    async def test_a_jump_changes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
        """Limits hold by a clock that only goes forward, events by their numbers; a run whose lease seems to be over
        is not taken over by the process that works on it."""
        tool = counter()
        backend = ScriptedBackend(Script.of(Turn(text="word " * 60, pace=0.02)))
        real = time.time
        async with serving(tmp_path, backend, Box(tool), lease_seconds=0.6) as server:
            body = {"input": "Hi", "background": True, "limits": {"seconds": 300}}
            run_id = (await server.client.post("/v1/runs", json=body)).json()["id"]
            await eventually(lambda: len(server.parts.runner.live[run_id].recent) > 3)
            monkeypatch.setattr(time, "time", lambda: real() + jump)
            for _ in range(5):
                assert await server.parts.runner.take_over_once() == 0
                await asyncio.sleep(0.1)
            async with asyncio.timeout(60):
                await server.client.get(f"/v1/runs/{run_id}/events")
            events = await server.parts.store.runs.events(run_id)
            assert [each.seq for each in events] == list(range(1, len(events) + 1))
            kinds = [each.type for each in events]
            assert (kinds.count("run.started"), kinds.count("run.ended")) == (1, 1)
            assert events[-1].data["outcome"] == "completed"
            row = await server.parts.store.runs.get(run_id)
            assert row is not None
            assert row.attempts == 1
