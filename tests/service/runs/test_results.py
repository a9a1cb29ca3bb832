"""Business numbers: what an ended run was worth, and what a success costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from service.telemetry import names
from service.telemetry.names import TaskResult
from tests.fakes.server import serving
from tests.fakes.tools import Box, counter

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SCRIPT = Script(
    (
        Rule("sorry", (Turn(text="I'm sorry, I cannot do that."),)),
        Rule("broken", (Turn(text="one two", fail="failed", fail_after=1),)),
        Rule("nothing", (Turn(text="   "),)),
        Rule("for ever", (Turn(calls=(Call("count"),)),) * 20),
        Rule("mine", (Turn(calls=(Call("mine"),)),)),
        Rule("", (Turn(text="Four words of answer."),)),
    )
)


@pytest.mark.parametrize(
    ("text", "fields", "result"),
    [
        ("hello", {}, "success"),
        ("mine", {"client_tools": [{"name": "mine"}]}, "success"),
        ("structured", {"output_schema": SCHEMA}, "success"),
        ("hello", {"max_tokens": 1}, "partial"),
        ("for ever", {"limits": {"steps": 2}}, "partial"),
        ("sorry", {}, "refused"),
        ("broken", {}, "failed"),
        ("nothing", {}, "failed"),
    ],
)
async def test_each_run_counts_as_what_it_was_worth(
    tmp_path: Path, text: str, fields: dict[str, Any], result: str
) -> None:
    """One result a run: an answer that is whole and no refusal is a success."""
    async with serving(tmp_path, ScriptedBackend(SCRIPT), Box(counter())) as server:
        await server.client.post("/v1/runs", json={"input": text, **fields})
        counts = {str(each): server.parts.metrics.value(names.TASKS, result=each) for each in TaskResult}
        assert counts == {**dict.fromkeys(counts, 0), result: 1}


async def test_leaving_is_no_failure(tmp_path: Path) -> None:
    """A cancelled run is abandoned, whatever it had done."""
    async with serving(tmp_path, ScriptedBackend(Script.of(Turn(text="a b c", pace=30)))) as server:
        run = (await server.client.post("/v1/runs", json={"input": "x", "background": True})).json()
        await server.client.post(f"/v1/runs/{run['id']}/cancel")
        assert server.parts.metrics.value(names.TASKS, result=TaskResult.ABANDONED) == 1


async def test_what_a_success_costs(tmp_path: Path) -> None:
    """Cost by the price table and seconds of model time add up over runs, to be divided by successes."""
    async with serving(tmp_path, ScriptedBackend(SCRIPT), price_completion=1e6, price_second=0.5) as server:
        runs = [(await server.client.post("/v1/runs", json={"input": "hello"})).json() for _ in range(3)]
        metrics = server.parts.metrics
        assert metrics.value(names.COST) == pytest.approx(sum(run["cost"] for run in runs))
        assert metrics.value(names.COST) >= 12
        assert 0 < metrics.value(names.MODEL_SECONDS) <= sum(run["seconds"] for run in runs) + 0.001
        assert metrics.value(names.TASKS, result=TaskResult.SUCCESS) == 3
