"""The four modes of a run, its log, and reading it again."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Script, Turn
from tests.fakes.server import serving

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]

SUM = Script.of(Turn(calls=(Call("calculator", {"expression": "6*7"}),)), Turn(text="It is ${tool}.", pace=0.001))


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of an SSE body, each with the id it was sent with."""
    found: list[dict[str, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append({"id": fields.get("id"), "event": fields["event"], **json.loads(fields["data"])})
    return found


async def test_blocking_run_uses_a_tool_and_answers(tmp_path: Path) -> None:
    """`background: false, stream: false` answers with the ended run: its output, steps, tool calls and usage."""
    async with serving(tmp_path, ScriptedBackend(SUM)) as server:
        answer = await server.client.post("/v1/runs", json={"input": "What is 6*7?"})
        assert answer.status_code == 200, answer.text
        run = answer.json()
        assert (run["status"], run["outcome"], run["output"]) == ("ended", "completed", "It is 42.")
        assert (run["steps"], run["tool_calls"], run["protocol"]) == (2, 1, "native")
        assert run["usage"]["total_tokens"] == run["usage"]["prompt_tokens"] + run["usage"]["completion_tokens"] > 0
        assert answer.headers["x-run-id"] == run["id"]


async def test_streamed_run_is_its_log(tmp_path: Path) -> None:
    """`stream: true` sends the event log, gapless from 1 to the one terminal event; reading it again is the same."""
    async with serving(tmp_path, ScriptedBackend(SUM)) as server:
        answer = await server.client.post("/v1/runs", json={"input": "What is 6*7?", "stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = events_of(answer.text)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert [event["id"] for event in events] == [str(event["seq"]) for event in events]
        kinds = [event["type"] for event in events if event["type"] != "text.delta"]
        assert kinds == [
            *("run.created", "run.started", "step.started", "step.completed", "tool.started", "tool.completed"),
            *("step.started", "step.completed", "run.ended"),
        ]
        assert "".join(e["data"]["text"] for e in events if e["type"] == "text.delta") == "It is 42."
        run_id = answer.headers["x-run-id"]
        again = await server.client.get(f"/v1/runs/{run_id}/events")
        assert again.text == answer.text


async def test_background_run_is_accepted_and_read_later(tmp_path: Path) -> None:
    """`background: true, stream: false` answers 202 at once; the events and the result come later."""
    async with serving(tmp_path, ScriptedBackend(SUM)) as server:
        answer = await server.client.post("/v1/runs", json={"input": "What is 6*7?", "background": True})
        assert answer.status_code == 202
        run_id = answer.json()["id"]
        assert answer.json()["status"] == "running"
        events = events_of((await server.client.get(f"/v1/runs/{run_id}/events")).text)
        assert events[-1]["type"] == "run.ended"
        run = (await server.client.get(f"/v1/runs/{run_id}")).json()
        assert run["outcome"] == "completed"
        assert run["last_event"] == events[-1]["seq"]


async def test_background_stream_goes_on_without_its_reader(tmp_path: Path) -> None:
    """`background: true, stream: true`: the client may leave; reconnecting with Last-Event-ID gives the rest."""
    script = Script.of(Turn(text="one two three four five six seven eight", pace=0.05))
    async with serving(tmp_path, ScriptedBackend(script)) as server:
        seen = 0
        body = {"input": "Count", "background": True, "stream": True}
        async with server.client.stream("POST", "/v1/runs", json=body) as answer:
            run_id = answer.headers["x-run-id"]
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    seen = int(line[4:])
                    if seen >= 4:
                        break
        rest = await server.client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(seen)})
        events = events_of(rest.text)
        assert [event["seq"] for event in events] == list(range(seen + 1, seen + 1 + len(events)))
        assert events[-1]["data"]["outcome"] == "completed"
        assert events[-1]["data"]["output"] == "one two three four five six seven eight"


async def test_events_as_pages(tmp_path: Path) -> None:
    """`stream=false` gives the log in pages that add up to the stream."""
    async with serving(tmp_path, ScriptedBackend(SUM)) as server:
        run_id = (await server.client.post("/v1/runs", json={"input": "6*7"})).json()["id"]
        whole = events_of((await server.client.get(f"/v1/runs/{run_id}/events")).text)
        pages: list[dict[str, Any]] = []
        more = True
        while more:
            after = pages[-1]["seq"] if pages else 0
            page = (
                await server.client.get(
                    f"/v1/runs/{run_id}/events", params={"stream": "false", "limit": 3, "after": after}
                )
            ).json()
            pages += page["data"]
            more = page["has_more"]
        assert [(e["seq"], e["type"], e["data"]) for e in pages] == [(e["seq"], e["type"], e["data"]) for e in whole]


async def test_listing_pages_newest_first(tmp_path: Path) -> None:
    """GET /v1/runs lists newest first and pages by `before` without gap or repetition."""
    async with serving(tmp_path, ScriptedBackend(Script.of(Turn(text="ok")))) as server:
        made = [(await server.client.post("/v1/runs", json={"input": str(i)})).json()["id"] for i in range(5)]
        first = (await server.client.get("/v1/runs", params={"limit": 3})).json()
        second = (await server.client.get("/v1/runs", params={"limit": 3, "before": first["data"][-1]["id"]})).json()
        assert [run["id"] for run in first["data"] + second["data"]] == made[::-1]
        assert (first["has_more"], second["has_more"]) == (True, False)
