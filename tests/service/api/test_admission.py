"""Overload, per-key limits, keys and open mode."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service import auth
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Rule, Script, Turn
from service.errors import StartupError
from service.settings import Settings
from service.store import Store
from service.telemetry import names
from tests.fakes.server import Serving, serving
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]

SCRIPT = Script((Rule("hold", (Turn(text="held", delay=0.3),)), Rule("", (Turn(text="Hello there."),))))


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}


async def key_of(server: Serving, *scopes: str, **limits: int) -> dict[str, str]:
    token, record = auth.make_key("test", scopes or ("chat", "runs"), limits)
    await server.parts.store.keys.add(record)
    return {"Authorization": f"Bearer {token}"}


async def test_overload_is_bounded_and_recovers(tmp_path: Path) -> None:
    """Beyond parallelism + queue the answer is 503 with Retry-After at once; the rest succeeds; everything returns."""
    backend = ScriptedBackend(SCRIPT, parallelism=2)
    async with serving(tmp_path, backend, max_queue=3) as server:
        gate = server.parts.admission.gate
        posts = [server.client.post("/v1/chat/completions", json=chat("hold")) for _ in range(20)]
        answers = await asyncio.gather(*posts)
        statuses = [answer.status_code for answer in answers]
        assert statuses.count(200) >= 5
        assert set(statuses) == {200, 503}
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert all(answer.json()["error"]["code"] == "overloaded" for answer in refused)
        assert (gate.places, gate.active, gate.waiting) == (gate.total, 0, 0)
        metrics = server.parts.metrics
        assert metrics.value(names.ADMISSION_REJECTED, reason="queue_full") == len(refused)
        assert metrics.value(names.QUEUE_DEPTH) == 0


async def test_never_more_calls_than_the_backend_runs(tmp_path: Path) -> None:
    """Model calls at a time never exceed the backend's parallelism, for runs and relays together."""
    most = 0

    class Watched(ScriptedBackend):
        async def chat(self, request: Any) -> Any:
            nonlocal most
            async for delta in super().chat(request):
                most = max(most, self.open_calls)
                yield delta

    async with serving(tmp_path, Watched(SCRIPT, parallelism=2), max_queue=50) as server:
        posts = [server.client.post("/v1/chat/completions", json=chat("hold")) for _ in range(6)]
        posts += [server.client.post("/v1/runs", json={"input": "hold"}) for _ in range(6)]
        assert {answer.status_code for answer in await asyncio.gather(*posts)} == {200}
        assert most == 2


async def test_queue_timeout(tmp_path: Path) -> None:
    """Who waits too long for the model gets 503 and keeps nothing."""
    async with serving(tmp_path, ScriptedBackend(SCRIPT, parallelism=1), queue_timeout=0.05) as server:
        first, second = await asyncio.gather(
            *(server.client.post("/v1/chat/completions", json=chat("hold")) for _ in range(2))
        )
        assert sorted((first.status_code, second.status_code)) == [200, 503]


async def test_each_key_has_its_limits(tmp_path: Path) -> None:
    """Requests a minute, tokens a minute and concurrency are 429 with Retry-After, and only that key's business."""
    async with serving(tmp_path, ScriptedBackend(SCRIPT), api_key="boot") as server:
        path = "/v1/chat/completions"
        for limits, code in (
            ({"rpm": 2}, "rate_limit_exceeded"),
            ({"tpm": 3}, "tokens_limit_exceeded"),
            ({"concurrency": 1}, "concurrency_limit_exceeded"),
        ):
            key = await key_of(server, **limits)
            if code.startswith("concurrency"):
                answers = await asyncio.gather(
                    *(server.client.post(path, json=chat("hold"), headers=key) for _ in range(3))
                )
            else:
                answers = [await server.client.post(path, json=chat("Hi"), headers=key) for _ in range(4)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert [answer.status_code for answer in answers].count(200) >= 1
            assert refused, limits
            assert refused[0].json()["error"]["code"] == code
            assert int(refused[0].headers["retry-after"]) >= 1
        other = await key_of(server)
        assert (await server.client.post(path, json=chat("Hi"), headers=other)).status_code == 200
        gate = server.parts.admission.gate
        assert gate.places == gate.total


async def test_scopes_and_tenants(tmp_path: Path) -> None:
    """A key does what its scopes say and sees its own runs only; another key's run looks like none; admin sees all."""
    async with serving(tmp_path, ScriptedBackend(SCRIPT), api_key="boot") as server:
        mine, yours = await key_of(server), await key_of(server)
        only_chat, admin = await key_of(server, "chat"), await key_of(server, "runs", "admin")
        run = (await server.client.post("/v1/runs", json={"input": "secret"}, headers=mine)).json()
        assert (await server.client.post("/v1/runs", json={"input": "x"}, headers=only_chat)).status_code == 403
        for path in (f"/v1/runs/{run['id']}", f"/v1/runs/{run['id']}/events"):
            other = await server.client.get(path, headers=yours)
            missing = await server.client.get(path.replace(run["id"], "run_" + "0" * 29), headers=yours)
            assert (other.status_code, other.json()) == (404, missing.json())
            assert (await server.client.get(path, headers=admin)).status_code == 200
        assert (await server.client.get("/v1/runs", headers=yours)).json()["data"] == []
        session = {"input": "x", "session_id": run["session_id"]}
        assert (await server.client.post("/v1/runs", json=session, headers=yours)).status_code == 404
        assert (await server.client.delete(f"/v1/sessions/{run['session_id']}", headers=yours)).status_code == 404
        response = (
            await server.client.post("/v1/responses", json={"model": "scripted", "input": "s"}, headers=mine)
        ).json()
        follow = {"model": "scripted", "input": "s", "previous_response_id": response["id"]}
        assert (await server.client.post("/v1/responses", json=follow, headers=yours)).status_code == 404


async def test_keys_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong, revoked and malformed keys are 401; the store has no secret."""
    monkeypatch.setattr(auth, "CACHE_SECONDS", 0.0)
    async with serving(tmp_path, ScriptedBackend(SCRIPT), api_key="boot") as server:
        good = await key_of(server)
        token = good["Authorization"].removeprefix("Bearer ")
        assert (await server.client.get("/v1/models", headers=good)).status_code == 200
        assert (await server.client.get("/v1/models", headers={"X-Api-Key": token})).status_code == 200
        for bad in ("x", token[:-1], token + "x", "al__", "al_0000_x", "al_\u00e9_x", "a" * 5000):
            headers = {"Authorization": f"Bearer {bad}".encode()}
            answer = await server.client.get("/v1/models", headers=headers)
            assert answer.status_code == 401, bad
            assert answer.headers["www-authenticate"] == "Bearer"
        assert await server.parts.store.keys.revoke(token.split("_")[1])
        assert (await server.client.get("/v1/models", headers=good)).status_code == 401
        assert token.split("_", 2)[2].encode() not in (tmp_path / "runs.db").read_bytes()


async def test_open_mode_is_for_this_machine(tmp_path: Path) -> None:
    """Without keys only loopback names and pages are served; the first key closes the door, for good."""
    async with serving(tmp_path, ScriptedBackend(SCRIPT), allowed_hosts=("box.test",)) as server:
        get = server.client.get
        assert (await get("/v1/models")).status_code == 200
        assert (await get("/v1/models", headers={"Host": "box.test:8000"})).status_code == 200
        assert (await get("/v1/models", headers={"Origin": "http://localhost:3000"})).status_code == 200
        for headers in ({"Host": "evil.test"}, {"Origin": "https://evil.test"}, {"Origin": "null"}):
            assert (await get("/v1/models", headers=headers)).status_code == 403, headers
        key = await key_of(server)
        server.parts.authenticate._open_until = 0.0
        assert (await get("/v1/models")).status_code == 401
        await server.parts.store.keys.revoke(key["Authorization"].split("_")[1])
        assert (await get("/v1/models")).status_code == 401


async def test_it_does_not_serve_the_world_without_a_key(tmp_path: Path) -> None:
    """Listening on an address that others reach needs a key: a store with one, or AGENT_LOOP_API_KEY."""
    settings = Settings(host="0.0.0.0", data_dir=tmp_path)
    with pytest.raises(StartupError, match="No API key"):
        await auth.check_before_start(settings)
    await auth.check_before_start(settings.model_copy(update={"host": "127.0.0.1"}))
    store = await Store.open(settings.database())
    await store.keys.add(auth.make_key("first", ("chat",))[1])
    await store.aclose()
    await auth.check_before_start(settings)


async def test_draining_refuses_at_once(tmp_path: Path) -> None:
    """While it drains new work gets 503 with Retry-After."""
    async with serving(tmp_path, ScriptedBackend(SCRIPT)) as server:
        server.parts.drain.begin()
        await eventually(lambda: server.parts.admission.gate.closed)
        answer = await server.client.post("/v1/chat/completions", json=chat("Hi"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
