"""Sessions, idempotency keys, feedback, variants, deletion and retention."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Rule, Script, Turn
from service.store.tables import events, features, idempotency, runs, sessions
from service.telemetry import names
from tests.fakes.server import Serving, serving
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]

SCRIPT = Script((Rule("slowly", (Turn(text="word " * 100, pace=0.05),)), Rule("", (Turn(text="Hello."),))))
Pair = tuple[Serving, ScriptedBackend]


@pytest.fixture(scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Pair]:
    backend = ScriptedBackend(SCRIPT)
    folder = tmp_path_factory.mktemp("sessions")
    async with serving(folder, backend, variant="canary", image="img@sha256:1") as server:
        yield server, backend


async def run(server: Serving, text: str, status: int = 200, headers: Any = None, **fields: Any) -> Any:
    answer = await server.client.post("/v1/runs", json={"input": text, **fields}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def count(server: Serving, table: Any, *where: Any) -> int:
    async with server.parts.store.database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(table).where(*where))).scalar_one()


class TestSessions:
    async def test_a_session_remembers(self, pair: Pair) -> None:
        """The second run of a session is shown the first one's messages and answer."""
        server, backend = pair
        first = await run(server, "one")
        await run(server, "two", session_id=first["session_id"])
        shown = [(m.role, m.content) for m in backend.requests[-1].messages if m.role != "system"]
        assert shown == [("user", "one"), ("assistant", "Hello."), ("user", "two")]

    async def test_a_second_run_is_rejected(self, pair: Pair) -> None:
        """While a run of the session is active another gets 409 and changes nothing."""
        server, _ = pair
        first = await run(server, "slowly", 202, background=True)
        refused = await run(server, "two", 409, session_id=first["session_id"])
        assert refused["error"]["code"] == "session_busy"
        assert first["id"] in refused["error"]["message"]
        await server.client.post(f"/v1/runs/{first['id']}/cancel")
        assert (await run(server, "three", session_id=first["session_id"]))["outcome"] == "completed"

    async def test_interrupt_replaces_the_active_run(self, pair: Pair) -> None:
        """`on_active_run: interrupt` cancels the active run, then goes on with its partial answer in the history."""
        server, backend = pair
        first = await run(server, "slowly", 202, background=True)
        await eventually(lambda: backend.open_calls == 1)
        second = await run(server, "two", session_id=first["session_id"], on_active_run="interrupt")
        assert second["outcome"] == "completed"
        assert (await server.client.get(f"/v1/runs/{first['id']}")).json()["outcome"] == "cancelled"

    async def test_unknown_sessions(self, pair: Pair) -> None:
        """A session that was never issued is 404, whatever its form."""
        server, _ = pair
        for name in ("sess_canary_" + "0" * 28, "../etc", "x" * 96):
            assert (await run(server, "Hi", 404, session_id=name))["error"]["param"] == "session_id"

    async def test_the_id_names_the_variant_and_the_run_records_it(self, pair: Pair) -> None:
        """Sessions are issued by a variant, whose image, model digest and prompt each run records."""
        server, _ = pair
        session = (await server.client.post("/v1/sessions")).json()
        assert session["id"].startswith("sess_canary_")
        made = await run(server, "Hi", session_id=session["id"])
        row = await server.parts.store.runs.get(made["id"])
        assert row is not None
        assert row.variant["name"] == "canary"
        assert row.variant["image"] == "img@sha256:1"
        assert row.variant["model_digest"].startswith("sha256:")

    async def test_deletion_leaves_nothing(self, pair: Pair) -> None:
        """Deleting a session deletes its runs, events, feature rows and idempotency records; an active one is 409."""
        server, _ = pair
        first = await run(server, "one", headers={"Idempotency-Key": "gone"})
        session = first["session_id"]
        busy = await run(server, "slowly", 202, session_id=session, background=True)
        assert (await server.client.delete(f"/v1/sessions/{session}")).status_code == 409
        await server.client.post(f"/v1/runs/{busy['id']}/cancel")
        assert (await server.client.delete(f"/v1/sessions/{session}")).json()["deleted"] is True
        assert await count(server, runs, runs.c.session_id == session) == 0
        assert await count(server, events, events.c.run_id == first["id"]) == 0
        assert await count(server, features, features.c.run_id == first["id"]) == 0
        assert await count(server, idempotency, idempotency.c.run_id == first["id"]) == 0
        assert await count(server, sessions, sessions.c.id == session) == 0
        assert (await server.client.delete(f"/v1/sessions/{session}")).status_code == 404


class TestIdempotency:
    async def test_same_key_same_body_is_one_run(self, pair: Pair) -> None:
        """Ten posts at once with one key make one run, and all get it; so does a later one."""
        server, backend = pair
        asked = len(backend.requests)
        key = {"Idempotency-Key": "ten"}
        answers = await asyncio.gather(*(run(server, "Hi", headers=key) for _ in range(10)))
        later = await server.client.post("/v1/runs", json={"input": "Hi"}, headers=key)
        assert {answer["id"] for answer in answers} == {later.json()["id"]}
        assert later.headers["idempotent-replayed"] == "true"
        assert len(backend.requests) == asked + 1

    async def test_another_body_is_a_conflict(self, pair: Pair) -> None:
        """The same key with another body is 409 idempotency_conflict."""
        server, _ = pair
        await run(server, "Hi", headers={"Idempotency-Key": "other"})
        refused = await run(server, "Ho", 409, headers={"Idempotency-Key": "other"})
        assert refused["error"]["code"] == "idempotency_conflict"

    async def test_a_running_one_is_attached_to(self, pair: Pair) -> None:
        """While the run goes on a repetition streams the same log from its start, and its leaving cancels nothing."""
        server, backend = pair
        key = {"Idempotency-Key": "attach"}
        first = await run(server, "slowly", 202, headers=key, background=True)
        await eventually(lambda: backend.open_calls == 1)
        body = {"input": "slowly", "background": True}
        async with server.client.stream("POST", "/v1/runs", json=body | {"stream": True}, headers=key) as other:
            assert other.status_code == 409  # `stream` is part of the body
        again = await run(server, "slowly", 202, headers=key, background=True)
        assert again["id"] == first["id"]
        await server.client.post(f"/v1/runs/{first['id']}/cancel")

    async def test_keys_expire(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        """After 24 hours a key may be used again."""
        server, _ = pair
        key = {"Idempotency-Key": "old"}
        first = await run(server, "Hi", headers=key)
        monkeypatch.setattr("service.runs.acceptance.IDEMPOTENCY_SECONDS", -1.0)
        assert (await run(server, "Hi", headers=key))["id"] != first["id"]

    async def test_an_earlier_run_survives_a_restart(self, tmp_path: Path) -> None:
        """The record is in the store: a new process answers with the old run."""
        key = {"Idempotency-Key": "restart"}
        async with serving(tmp_path, ScriptedBackend(SCRIPT)) as server:
            first = await run(server, "Hi", headers=key)
        async with serving(tmp_path, ScriptedBackend(SCRIPT)) as server:
            assert (await run(server, "Hi", headers=key))["id"] == first["id"]


class TestAfterwards:
    async def test_feedback_reaches_the_feature_row(self, pair: Pair) -> None:
        """Thumbs are on the run and in its feature row, which has numbers and no text."""
        server, _ = pair
        made = await run(server, "Tell me")
        answer = await server.client.post(f"/v1/runs/{made['id']}/feedback", json={"thumbs": "down", "comment": "no"})
        assert answer.json()["feedback"] == {"thumbs": "down", "comment": "no"}
        async with server.parts.store.database.read() as connection:
            row = (await connection.execute(select(features).where(features.c.run_id == made["id"]))).one()
        assert (row.thumbs, row.turns, row.script, row.refusal, row.variant) == (-1, 1, "latin", 0, "canary")
        assert "Hello" not in str(row)

    async def test_opinions_are_counted_once(self, pair: Pair) -> None:
        """Saying the same again is one opinion; changing it is another."""
        server, _ = pair
        made = await run(server, "Tell me")
        counted = [server.parts.metrics.value(names.FEEDBACK, thumbs=each) for each in ("up", "down")]
        for thumbs in ("up", "up", "down"):
            await server.client.post(f"/v1/runs/{made['id']}/feedback", json={"thumbs": thumbs})
        now = [server.parts.metrics.value(names.FEEDBACK, thumbs=each) for each in ("up", "down")]
        assert [after - before for before, after in zip(counted, now, strict=True)] == [1, 1]

    async def test_asking_again_counts_as_a_retry(self, pair: Pair) -> None:
        """The same question twice in a session is marked and counted, as a signal of a bad first answer."""
        server, _ = pair
        before = server.parts.metrics.value(names.TASK_RETRIES)
        first = await run(server, "Why?")
        second = await run(server, "Why?", session_id=first["session_id"])
        async with server.parts.store.database.read() as connection:
            rows = await connection.execute(select(features.c.run_id, features.c.user_retry))
            marks = {row.run_id: row.user_retry for row in rows}
        assert (marks[first["id"]], marks[second["id"]]) == (0, 1)
        assert server.parts.metrics.value(names.TASK_RETRIES) == before + 1

    async def test_retention(self, tmp_path: Path) -> None:
        """Runs that ended before the retention go, with events and empty sessions; younger ones stay."""
        async with serving(tmp_path, ScriptedBackend(SCRIPT)) as server:
            old = await run(server, "old")
            middle = time.time()
            young = await run(server, "young")
            assert await server.parts.store.runs.purge(middle, middle) == 1
            assert (await server.client.get(f"/v1/runs/{old['id']}")).status_code == 404
            assert (await server.client.get(f"/v1/runs/{young['id']}")).status_code == 200
            assert await count(server, events, events.c.run_id == old["id"]) == 0
            assert await count(server, sessions) == 1
