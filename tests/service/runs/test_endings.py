"""Every way in which a run ends: each limit, cancellation, a client that leaves, errors of tools and models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from service.telemetry import names
from tests.fakes.server import Serving, serving
from tests.fakes.tools import Box, Recorded, counter, sleeper
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]

COUNT = Turn(calls=(Call("count"),))
SCRIPT = Script(
    (
        Rule("for ever", (COUNT,) * 50),
        Rule("twice", (Turn(calls=(Call("count"), Call("count"))), COUNT, Turn(text="done"))),
        Rule("sleep", (Turn(calls=(Call("sleep"),)), Turn(text="awake"))),
        Rule("slowly", (Turn(text="word " * 200, pace=0.05),)),
        Rule("wait", (Turn(text="late", delay=60),)),
        Rule("unknown", (Turn(calls=(Call("nope"),)),) * 9),
        Rule(
            "mend",
            (Turn(calls=(Call("strict", {"n": "x"}),)), Turn(calls=(Call("strict", {"n": 1}),)), Turn(text="ok")),
        ),
        Rule("garbage", (Turn(calls=(Call("count", raw="{not json"),)), Turn(text="${tool}"))),
        Rule("explode", (Turn(calls=(Call("explode"),)), Turn(text="${tool}"))),
        Rule("break", (Turn(text="one two three", fail="failed", fail_after=2),)),
        Rule("", (Turn(text="Hello there, friend."),)),
    )
)


async def explode(_arguments: Any, _context: Any) -> str:
    raise RuntimeError("secret detail")


@dataclass
class Scene:
    """A service with tools whose effects show."""

    server: Serving
    backend: ScriptedBackend
    count: Recorded
    sleep: Recorded
    strict: Recorded
    seen: dict[str, float] = field(default_factory=dict)

    async def run(self, text: str, **fields: Any) -> dict[str, Any]:
        answer = await self.server.client.post("/v1/runs", json={"input": text, **fields})
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    async def get(self, run_id: str) -> dict[str, Any]:
        return (await self.server.client.get(f"/v1/runs/{run_id}")).json()

    async def ended(self, run_id: str) -> dict[str, Any]:
        for _ in range(3000):
            run = await self.get(run_id)
            if run["status"] == "ended":
                return run
            await asyncio.sleep(0.01)
        raise AssertionError(f"{run_id} does not end")


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene]:
    backend = ScriptedBackend(SCRIPT)
    count, sleep = counter(), sleeper()
    strict = counter(
        "strict", parameters={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    )
    box = Box(count, sleep, strict, Recorded("explode", explode))
    async with serving(tmp_path_factory.mktemp("endings"), backend, box, max_tool_calls=20) as server:
        yield Scene(server, backend, count, sleep, strict)


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "outcome", "steps", "tool_calls"),
        [
            ({"steps": 3}, "max_steps", 3, 3),
            ({"tool_calls": 2}, "max_tool_calls", 3, 2),
            ({"tool_calls": 0}, "max_tool_calls", 1, 0),
            ({"tokens": 1}, "max_tokens", 1, 1),
        ],
    )
    async def test_each_limit_has_its_outcome(
        self, scene: Scene, limits: dict[str, Any], outcome: str, steps: int, tool_calls: int
    ) -> None:
        """A run ends at its limit with that limit's outcome; at most the step in flight overshoots."""
        run = await scene.run("for ever", limits=limits)
        assert (run["outcome"], run["steps"], run["tool_calls"]) == (outcome, steps, tool_calls)
        assert run["finish_reason"] == "length"

    async def test_calls_of_one_step_stop_at_the_limit(self, scene: Scene) -> None:
        """Of two calls in one step only the allowed one is made."""
        before = len(scene.count.calls)
        run = await scene.run("twice", limits={"tool_calls": 1})
        assert (run["outcome"], run["tool_calls"]) == ("max_tool_calls", 1)
        assert len(scene.count.calls) == before + 1

    @pytest.mark.parametrize("words", ["wait", "sleep", "slowly"])
    async def test_wall_clock(self, scene: Scene, words: str) -> None:
        """Time runs out in a model call before or within its reply, and in a tool: `max_time`, and the call ends."""
        run = await scene.run(words, limits={"seconds": 0.3})
        assert run["outcome"] == "max_time"
        assert scene.backend.open_calls == 0
        if words == "slowly":
            assert run["output"].startswith("word")  # what was done so far is kept

    async def test_cost(self, scene: Scene, tmp_path: Any) -> None:
        """Cost is tokens times the price table; reaching the budget ends the run as `max_cost`."""
        box = Box(counter())
        async with serving(tmp_path, ScriptedBackend(SCRIPT), box, price_prompt=1e6, price_completion=2e6) as server:
            answer = await server.client.post("/v1/runs", json={"input": "for ever", "limits": {"cost": 1.0}})
            run = answer.json()
            usage = run["usage"]
            assert run["outcome"] == "max_cost"
            assert run["cost"] == usage["prompt_tokens"] + 2 * usage["completion_tokens"]

    async def test_above_the_servers_limit_is_refused(self, scene: Scene) -> None:
        """A limit above the server's own is a mistake to be told, not to be cut silently."""
        answer = await scene.server.client.post("/v1/runs", json={"input": "Hi", "limits": {"tool_calls": 21}})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "limits.tool_calls"


class TestCancel:
    async def test_cancel_is_idempotent(self, scene: Scene) -> None:
        """Cancelling ends the run and the call upstream; again it returns the same end; it is counted once."""
        counted = scene.server.parts.metrics.value(names.RUNS, outcome="cancelled")
        run = await scene.run("slowly", background=True)
        await eventually(lambda: scene.backend.open_calls == 1)
        first = (await scene.server.client.post(f"/v1/runs/{run['id']}/cancel")).json()
        second = (await scene.server.client.post(f"/v1/runs/{run['id']}/cancel")).json()
        assert first["outcome"] == second["outcome"] == "cancelled"
        assert first["last_event"] == second["last_event"]
        assert scene.backend.open_calls == 0
        assert scene.server.parts.metrics.value(names.RUNS, outcome="cancelled") == counted + 1

    async def test_cancelling_an_ended_run_returns_its_end(self, scene: Scene) -> None:
        """What has completed stays completed."""
        run = await scene.run("Hi")
        again = (await scene.server.client.post(f"/v1/runs/{run['id']}/cancel")).json()
        assert again["outcome"] == "completed"

    async def test_cancel_reaches_a_tool(self, scene: Scene) -> None:
        """A tool in mid-call is cancelled with its run."""
        calls = len(scene.sleep.calls)
        run = await scene.run("sleep", background=True)
        await eventually(lambda: len(scene.sleep.calls) == calls + 1)
        await scene.server.client.post(f"/v1/runs/{run['id']}/cancel")
        assert (await scene.ended(run["id"]))["outcome"] == "cancelled"


class TestClientLeaves:
    @pytest.mark.parametrize("words", ["slowly", "wait", "sleep"])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_leaving_cancels(self, scene: Scene, words: str, stream: bool) -> None:
        """The client of a streaming or blocking run closes its connection: the call ends, the run is client_gone."""
        before = {run["id"] for run in (await scene.server.client.get("/v1/runs?status=running")).json()["data"]}
        waiting = asyncio.create_task(scene.server.client.post("/v1/runs", json={"input": words, "stream": stream}))
        calls = len(scene.sleep.calls)
        await eventually(lambda: scene.backend.open_calls or len(scene.sleep.calls) > calls)
        running = (await scene.server.client.get("/v1/runs?status=running")).json()["data"]
        [run_id] = [run["id"] for run in running if run["id"] not in before]
        waiting.cancel()
        run = await scene.ended(run_id)
        assert run["outcome"] == "client_gone"
        await eventually(lambda: scene.backend.open_calls == 0)

    @pytest.mark.parametrize("stream", [True, False])
    async def test_continue_goes_on(self, scene: Scene, stream: bool) -> None:
        """`on_disconnect: continue` lets the run end by itself when its client has left."""
        calls = len(scene.count.calls)
        body = {"input": "for ever", "stream": stream, "on_disconnect": "continue", "limits": {"steps": 4}}
        waiting = asyncio.create_task(scene.server.client.post("/v1/runs", json=body))
        await eventually(lambda: len(scene.count.calls) > calls)
        waiting.cancel()
        newest = (await scene.server.client.get("/v1/runs?limit=1")).json()["data"][0]
        assert (await scene.ended(newest["id"]))["outcome"] == "max_steps"

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
    @pytest.mark.parametrize("model", ["scripted", "agent/default"])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_openai_clients_too(self, scene: Scene, path: str, model: str, stream: bool) -> None:
        """The same holds on OpenAI's wire, for models and agents: the upstream call is closed, places come back."""
        aborted = scene.backend.aborted
        body: dict[str, Any] = {"model": model, "stream": stream}
        body |= (
            {"input": "slowly"} if path.endswith("responses") else {"messages": [{"role": "user", "content": "slowly"}]}
        )
        waiting = asyncio.create_task(scene.server.client.post(path, json=body))
        await eventually(lambda: scene.backend.open_calls == 1)
        await asyncio.sleep(0.1)
        waiting.cancel()
        await eventually(lambda: scene.backend.open_calls == 0, "the call upstream is closed")
        assert scene.backend.aborted == aborted + 1
        gate = scene.server.parts.admission.gate
        await eventually(lambda: gate.places == gate.total and gate.active == 0)


class TestFailures:
    async def test_model_error_keeps_what_came(self, scene: Scene) -> None:
        """A failure within the reply ends the run as `model_error` with the partial text."""
        run = await scene.run("break")
        assert (run["outcome"], run["output"]) == ("model_error", "one two")
        assert run["error"]["code"] == "backend_failed"

    async def test_repairs_have_a_budget(self, scene: Scene) -> None:
        """Unknown tools are told to the model three times; the fourth failure in a row is `tool_error`."""
        run = await scene.run("unknown")
        assert (run["outcome"], run["steps"]) == ("tool_error", 4)

    async def test_arguments_are_checked_and_mended(self, scene: Scene) -> None:
        """Arguments that do not fit the schema never reach the tool; the model hears why and may correct them."""
        run = await scene.run("mend")
        assert (run["outcome"], run["output"]) == ("completed", "ok")
        assert len(scene.strict.calls) == 1
        log = (await scene.server.client.get(f"/v1/runs/{run['id']}/events?stream=false")).json()["data"]
        results = [event["data"] for event in log if event["type"] == "tool.completed"]
        assert [result["ok"] for result in results] == [False, True]
        assert "schema: n:" in results[0]["content"]

    async def test_arguments_that_are_no_json(self, scene: Scene) -> None:
        """They are an error for the model, too."""
        run = await scene.run("garbage")
        assert run["outcome"] == "completed"
        assert "not valid JSON" in run["output"]

    async def test_an_exception_in_a_tool_shows_only_its_type(self, scene: Scene) -> None:
        """A tool that breaks is reported without its message, which may hold anything."""
        run = await scene.run("explode")
        assert run["output"] == "The tool failed (RuntimeError)."


async def test_usage_of_events_run_and_metrics_agree(scene: Scene) -> None:
    """Sum of usage in the events = usage of the run = growth of the token counter."""
    metrics = scene.server.parts.metrics

    def counted() -> float:
        labels = {"gen_ai_provider_name": "scripted", "gen_ai_request_model": "scripted"}
        return sum(metrics.value(names.TOKENS, gen_ai_token_type=kind, **labels) for kind in ("input", "output"))

    before = counted()
    run = await scene.run("twice")
    log = (await scene.server.client.get(f"/v1/runs/{run['id']}/events?stream=false")).json()["data"]
    usages = [event["data"]["usage"] for event in log if event["type"] == "step.completed"]
    total = sum(usage["prompt_tokens"] + usage["completion_tokens"] for usage in usages)
    assert total == run["usage"]["total_tokens"] == counted() - before > 0
