"""What the controller asks Prometheus, and what it makes of the answers; real answers come in the end-to-end test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ci.stack.canary import observe
from ci.stack.canary.gates import Histogram, Rate
from ci.stack.canary.plan import GATES
from ci.stack.errors import StackError


def prometheus(values: dict[str, float]) -> observe.Ask:
    """Answers an expression by the first fragment that it holds, else with an empty vector."""

    def ask(expression: str, at: float) -> list[dict[str, Any]]:
        found = next((v for part, v in values.items() if part in expression), None)
        return [] if found is None else [{"metric": {}, "value": [at, str(found)]}]

    return ask


def test_every_gate_is_asked_for() -> None:
    """A gate of the plan that nobody reads would silently hold."""
    seen = observe.observe(prometheus({}), 0, 60)
    assert {gate.name for gate in GATES} == set(seen.canary) == set(seen.stable)


def test_numbers_become_rates_by_variant() -> None:
    """Bad among all, each variant by its own scrape job."""
    seen = observe.observe(
        prometheus(
            {
                'agent_loop_tasks_total{job="agent-canary",result="refused"': 3,
                'agent_loop_tasks_total{job="agent-canary",result!="abandoned"': 40,
                'agent_loop_tasks_total{job="agent",result!="abandoned"': 360,
            }
        ),
        0,
        60,
    )
    assert seen.canary["refusals"] == Rate(3, 40)
    assert seen.stable["refusals"] == Rate(0, 360)


def test_the_cost_of_a_success_is_told() -> None:
    """Money where a price table is set, else model seconds; nothing before there was a success."""
    successes = {'job="agent",result="success"': 10, 'job="agent-canary",result="success"': 5}
    seconds = {'agent_loop_model_seconds_total{job="agent"}': 20, 'seconds_total{job="agent-canary"}': 5}
    seen = observe.observe(prometheus(successes | seconds), 0, 60)
    assert seen.told == ", a success costs 1.00 model seconds against 2.00 model seconds"
    priced = observe.observe(prometheus(successes | seconds | {"agent_loop_cost_total": 1.0}), 0, 60)
    assert priced.told == ", a success costs 0.2 against 0.1"
    assert observe.observe(prometheus({}), 0, 60).told == ""


def test_cumulative_buckets_become_counts() -> None:
    """Prometheus counts up; the comparison wants each bucket by itself."""
    assert observe.histogram({0.5: 3, 0.1: 1, float("inf"): 4}) == Histogram((1, 2, 1))


@pytest.mark.parametrize("text", ["", "no such host", json.dumps([{"metric": {}}])])
def test_no_answer_names_the_question(text: str) -> None:
    """A Prometheus that is down must not look like one that saw nothing."""
    with pytest.raises(StackError, match="sum\\(up\\)"):
        observe.answer(text, "sum(up)")
