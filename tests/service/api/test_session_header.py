"""`X-Session-Id`: every answer that belongs to a session names it, whatever route and wire it came by."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.session import SESSION_ID
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Script, Turn
from tests.fakes.server import Serving, serving

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncGenerator[Serving]:
    async with serving(tmp_path, variant="canary-2") as server:
        yield server


def session_of(answer: httpx.Response) -> str:
    """The session that the answer names, which must be one of this deployment's."""
    named = SESSION_ID.fullmatch(answer.headers.get("x-session-id", ""))
    assert named is not None, f"{answer.request.method} {answer.request.url.path}: {answer.headers}"
    assert named["variant"] == "canary-2"
    return named[0]


@pytest.mark.parametrize("mode", [{}, {"stream": True}, {"background": True}, {"background": True, "stream": True}])
async def test_every_mode_of_a_run(service: Serving, mode: dict[str, Any]) -> None:
    """Blocking, streaming, background and both; the run's own record agrees."""
    answer = await service.client.post("/v1/runs", json={"input": "Hi", **mode})
    session = session_of(answer)
    run_id = answer.headers["x-run-id"]
    run = await service.client.get(f"/v1/runs/{run_id}")
    assert run.json()["session_id"] == session


async def test_every_route_of_a_run(service: Serving) -> None:
    """Reading, events, cancelling, feedback, the session's list, and its deletion."""
    made = await service.client.post("/v1/sessions")
    session = session_of(made)
    first = await service.client.post("/v1/runs", json={"input": "Hi", "session_id": session})
    path = f"/v1/runs/{first.json()['id']}"
    for method, where, body in (
        ("GET", path, None),
        ("GET", f"{path}/events", None),
        ("GET", f"{path}/events?stream=false", None),
        ("POST", f"{path}/cancel", None),
        ("POST", f"{path}/feedback", {"thumbs": "up"}),
        ("GET", f"/v1/runs?session_id={session}", None),
        ("DELETE", f"/v1/sessions/{session}", None),
    ):
        assert session_of(await service.client.request(method, where, json=body)) == session


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["agent/default", "scripted"])
async def test_chat_completions(service: Serving, model: str, stream: bool) -> None:
    """An agent's answer names its run's session; a plain model's names one to stay with, and keeps the one given."""
    body = {"model": model, "messages": HI, "stream": stream}
    session = session_of(await service.client.post("/v1/chat/completions", json=body))
    headers = {"X-Session-Id": session}
    again = session_of(await service.client.post("/v1/chat/completions", json=body, headers=headers))
    assert (again == session) == (model == "scripted")


async def test_another_variants_session_is_not_repeated(service: Serving) -> None:
    """Nor is anything else that a client may send there."""
    for given in ("sess_stable_" + "0" * 28, "sess_canary-2_x", "x" * 300, "sess_canary-2_" + "0" * 29):
        answer = await service.client.post(
            "/v1/chat/completions", json={"model": "scripted", "messages": HI}, headers={"X-Session-Id": given}
        )
        assert session_of(answer) != given


@pytest.mark.parametrize("mode", [{}, {"stream": True}, {"background": True}])
async def test_responses(service: Serving, mode: dict[str, Any]) -> None:
    """Creating, reading, cancelling and deleting a response."""
    body = {"model": "agent/default", "input": "Hi", **mode}
    answer = await service.client.post("/v1/responses", json=body)
    session = session_of(answer)
    path = f"/v1/responses/resp_{answer.headers['x-run-id'].removeprefix('run_')}"
    for method, where in (("GET", path), ("POST", f"{path}/cancel"), ("DELETE", path)):
        assert session_of(await service.client.request(method, where)) == session


async def test_errors_too(tmp_path: Path) -> None:
    """What is refused about a run or a session names it; what belongs to none names none."""
    backend = ScriptedBackend(Script.of(Turn(text="one two three", pace=30)))
    async with serving(tmp_path, backend, variant="canary-2") as server:
        made = await server.client.post("/v1/runs", json={"input": "Hi", "background": True})
        session, run = session_of(made), made.json()["id"]
        refused = [
            await server.client.post(f"/v1/runs/{run}/feedback", json={"thumbs": "up"}),
            await server.client.delete(f"/v1/sessions/{session}"),
        ]
        assert [each.status_code for each in refused] == [409, 409]
        assert {session_of(each) for each in refused} == {session}
        for path in ("/health", "/v1/models", "/v1/runs", "/v1/runs/run_" + "0" * 29):
            assert "x-session-id" not in (await server.client.get(path)).headers
