"""What the controller asks Prometheus, and what it makes of the answers; real answers come in the end-to-end test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ci.stack.canary import observe
from ci.stack.canary.gates import Histogram, Rate
from ci.stack.canary.plan import GATES
from ci.stack.errors import StackError


def prometheus(values: dict[tuple[str, str], float]) -> observe.Ask:
    """Answers the joint question with the given increases by job and series, all others with nothing."""

    def ask(expression: str, at: float) -> list[dict[str, Any]]:
        if "label_replace" not in expression:
            return []
        assert all(f'"{series}"' in expression for _, series in values), "a series that nobody asks for"
        return [
            {"metric": {"job": job, "series": series}, "value": [at, str(value)]}
            for (job, series), value in values.items()
        ]

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
                ("agent-canary", "refusals bad"): 3,
                ("agent-canary", "refusals total"): 40,
                ("agent", "refusals total"): 360,
            }
        ),
        0,
        60,
    )
    assert seen.canary["refusals"] == Rate(3, 40)
    assert seen.stable["refusals"] == Rate(0, 360)


def test_the_cost_of_a_success_is_told() -> None:
    """Money where a price table is set, else model seconds; nothing before there was a success."""
    spent = {
        ("agent", "successes"): 10.0,
        ("agent", "seconds"): 20.0,
        ("agent-canary", "successes"): 5.0,
        ("agent-canary", "seconds"): 5.0,
    }
    seen = observe.observe(prometheus(spent), 0, 60)
    assert seen.told == ", a success costs 1.00 model seconds against 2.00 model seconds"
    priced = observe.observe(prometheus({**spent, ("agent", "price"): 1.0, ("agent-canary", "price"): 1.0}), 0, 60)
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
