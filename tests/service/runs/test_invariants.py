"""Any sequence of what people do to runs, over two processes on one store: the invariants hold after every step.

1. each accepted run has one terminal event, last in a gapless log, and is counted once; 2. no limit is exceeded by more
than the step in flight; 3. reading from any point gives the same log; 4. no tool call is made twice; 5. places and
permits come back; 8. usage in events, run and metrics agree.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from service.telemetry import names
from service.telemetry.names import Outcome, TokenType
from tests.fakes.server import Serving, serving
from tests.fakes.tools import Box, counter
from tests.fakes.waiting import eventually

pytestmark = pytest.mark.long

SCRIPT = Script(
    (
        Rule("tools", (Turn(calls=(Call("count"), Call("count"))), Turn(calls=(Call("count"),)), Turn(text="counted"))),
        Rule("slow", (Turn(text="word " * 30, pace=0.004),)),
        Rule("fail", (Turn(text="one two", fail="failed", fail_after=1),)),
        Rule("bad", (Turn(calls=(Call("nope"),)),) * 6),
        Rule("", (Turn(text="Hello there."),)),
    )
)
WORDS = st.sampled_from(["tools", "slow", "fail", "bad", "hello"])
LIMITS = st.fixed_dictionaries(
    {},
    optional={"steps": st.integers(1, 3), "tool_calls": st.integers(0, 3), "tokens": st.integers(1, 60)},
)
PROCESS = st.integers(0, 1)


class Runs(RuleBasedStateMachine):
    """Two processes, and what was asked of them."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="invariants-"))
        self.stack = AsyncExitStack()
        self.tool = counter()
        self.servers: list[Serving] = []
        for _ in range(2):
            backend, box = ScriptedBackend(SCRIPT), Box(self.tool)
            entered = self.stack.enter_async_context(serving(self.folder, backend, box, poll_seconds=0.02))
            self.servers.append(self.loop.run_until_complete(entered))
        self.accepted: list[tuple[str, dict[str, Any]]] = []
        self.sessions: list[str] = []
        self.keys: dict[str, str] = {}

    def do(self, coroutine: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(60):
                return await coroutine

        return self.loop.run_until_complete(bounded())

    def accept(self, answer: Any, limits: dict[str, Any]) -> None:
        if answer.status_code in (200, 202):
            run_id = answer.headers["x-run-id"]
            if run_id not in [each for each, _ in self.accepted]:
                self.accepted.append((run_id, limits))
                self.sessions.append(answer.headers["x-session-id"])
        else:
            assert answer.status_code == 409, answer.text

    @rule(where=PROCESS, words=WORDS, limits=LIMITS, background=st.booleans(), stream=st.booleans())
    def post(self, where: int, words: str, limits: dict[str, Any], background: bool, stream: bool) -> None:
        body = {"input": words, "limits": limits, "background": background, "stream": stream}
        self.accept(self.do(self.servers[where].client.post("/v1/runs", json=body)), limits)

    @rule(where=PROCESS, words=WORDS, number=st.integers(0, 20), policy=st.sampled_from(["reject", "interrupt"]))
    def go_on(self, where: int, words: str, number: int, policy: str) -> None:
        if self.sessions:
            session = self.sessions[number % len(self.sessions)]
            body = {"input": words, "session_id": session, "background": True, "on_active_run": policy}
            self.accept(self.do(self.servers[where].client.post("/v1/runs", json=body)), {})

    @rule(where=PROCESS, words=WORDS, key=st.sampled_from(["a", "b"]))
    def repeat(self, where: int, words: str, key: str) -> None:
        client = self.servers[where].client
        body = {"input": words, "background": True}
        answer = self.do(client.post("/v1/runs", json=body, headers={"Idempotency-Key": key}))
        known = self.keys.setdefault(key, words)
        assert (answer.status_code == 202) == (known == words), answer.text
        if answer.status_code == 202:
            self.accept(answer, {})

    @rule(where=PROCESS, number=st.integers(0, 20))
    def cancel(self, where: int, number: int) -> None:
        if self.accepted:
            run_id = self.accepted[number % len(self.accepted)][0]
            assert self.do(self.servers[where].client.post(f"/v1/runs/{run_id}/cancel")).status_code == 200

    @rule(where=PROCESS, words=WORDS, cut=st.integers(1, 400))
    def leave(self, where: int, words: str, cut: int) -> None:
        async def read_a_little() -> str:
            seen = 0
            body = {"input": words, "stream": True}
            async with self.servers[where].client.stream("POST", "/v1/runs", json=body) as answer:
                async for piece in answer.aiter_bytes():
                    seen += len(piece)
                    if seen >= cut:
                        break
            self.sessions.append(answer.headers["x-session-id"])
            return answer.headers["x-run-id"]

        self.accepted.append((self.do(read_a_little()), {}))

    @rule(where=PROCESS, number=st.integers(0, 20), after=st.integers(0, 12))
    def read_again(self, where: int, number: int, after: int) -> None:
        """From any point, in either process, by stream and by page: the same events."""
        if not self.accepted:
            return
        path = f"/v1/runs/{self.accepted[number % len(self.accepted)][0]}/events"
        client = self.servers[where].client
        stream = self.do(client.get(path, headers={"Last-Event-ID": str(after)})).text
        page = self.do(self.servers[1 - where].client.get(f"{path}?stream=false&limit=1000&after={after}")).json()
        ids = [int(line[4:]) for line in stream.splitlines() if line.startswith("id: ")]
        assert ids == [event["seq"] for event in page["data"]]

    @invariant()
    def calls_are_made_once(self) -> None:
        made = Counter((call.run_id, call.call_id) for call in self.tool.calls) if hasattr(self, "tool") else {}
        assert all(times == 1 for times in made.values())

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            usage = sum(self.check(run_id, limits) for run_id, limits in self.accepted)
            self.do(self.settled())
            metrics = [server.parts.metrics for server in self.servers]
            for outcome in Outcome:
                counted = sum(each.value(names.RUNS, outcome=outcome) for each in metrics)
                assert counted == self.outcomes()[str(outcome)], outcome
            labels = {"gen_ai_provider_name": "scripted", "gen_ai_request_model": "scripted"}
            tokens = sum(
                each.value(names.TOKENS, gen_ai_token_type=kind, **labels) for each in metrics for kind in TokenType
            )
            assert tokens == usage
        finally:
            self.loop.run_until_complete(self.stack.aclose())
            self.loop.close()
            shutil.rmtree(self.folder)

    async def settled(self) -> None:
        """Until every place and permit is back."""
        gates = [server.parts.admission.gate for server in self.servers]
        await eventually(lambda: all((gate.places, gate.active) == (gate.total, 0) for gate in gates))

    def outcomes(self) -> Counter[str]:
        return Counter(self.run(run_id)["outcome"] for run_id, _ in self.accepted)

    def run(self, run_id: str) -> dict[str, Any]:
        return self.do(self.servers[0].client.get(f"/v1/runs/{run_id}")).json()

    def check(self, run_id: str, limits: dict[str, Any]) -> int:
        """The invariants of one run, once it has ended; returns its tokens."""
        client = self.servers[0].client
        self.do(client.get(f"/v1/runs/{run_id}/events"))
        log = self.do(client.get(f"/v1/runs/{run_id}/events?stream=false&limit=1000")).json()["data"]
        run = self.run(run_id)
        kinds = [event["type"] for event in log]
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
        assert (kinds.count("run.ended"), kinds[-1]) == (1, "run.ended")
        assert run["status"] == "ended"
        assert run["steps"] <= limits.get("steps", 10)
        assert run["tool_calls"] <= limits.get("tool_calls", 32)
        steps = [event["data"]["usage"] for event in log if event["type"] == "step.completed"]
        tokens = sum(each["prompt_tokens"] + each["completion_tokens"] for each in steps)
        assert tokens == run["usage"]["total_tokens"] == log[-1]["data"]["usage"]["total_tokens"]
        before_last = tokens - sum(steps[-1].values()) if steps else 0
        assert before_last < limits.get("tokens", 10**9)
        return tokens


Runs.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=12,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # twelve steps are short enough to read; shrinking them takes minutes
)
TestRuns = Runs.TestCase
