"""What a function would build, without building it."""

import json

import pytest

from ci.engine.module.errors import CallError
from ci.engine.plan.text import tree

from .conftest import Modules


def test_a_tree_tells_a_build_from_base_to_labels(modules: Modules) -> None:
    """Every step stands in order, what it copies hangs beneath it, and a shared chain is drawn once."""
    lines = tree(modules("webapp").plan("build-runtime", "--revision", "abc")).splitlines()
    assert lines[0] == "build-runtime: Container"
    assert lines[2:5] == [
        '├── with-directory /opt/packages owner="10001:10001"',
        "│   └── source: /opt/packages of Container #1",
        f"│       ├── from docker.io/library/python:3.13-slim-trixie@sha256:{'1' * 64}",
    ]
    assert "│   └── source: /opt/app of Container #1, as above" in lines
    assert "│       │   └── source: requirements.txt of host . exclude=**,!app/**,!requirements.txt" in lines
    assert lines[-1] == "└── with-label org.opencontainers.image.revision=abc"


def test_json_is_the_same_whenever_and_wherever_it_is_made(modules: Modules) -> None:
    """Steps are numbered from what they rest on; no id, hash or path of this machine is in them."""
    first, second = (modules("webapp").plan("build-runtime").to_json("webapp") for _ in range(2))
    assert first == second
    text = json.dumps(first)
    assert str(modules("webapp").source.root) not in text
    steps = first["steps"]
    assert all(step.get("on", -1) < step["step"] for step in steps)
    assert steps[first["results"]["build-runtime"]]["args"]["name"] == "org.opencontainers.image.revision"


def test_a_question_that_only_a_build_answers_gets_a_placeholder(modules: Modules) -> None:
    """`test` looks at an exit code before it returns; the plan says so, and what was taken for it."""
    planned = modules("webapp").plan("test", "--token", "env://NOT_SET_ANYWHERE")
    assert [(a.field, a.answer) for a in planned.asked] == [("exitCode", 0)]
    assert planned.graph.steps[planned.asked[0].step].field == "withExec"
    assert planned.graph.steps[planned.graph.results["test"]].field == "directory"


def test_a_function_that_only_asks_has_a_plan(modules: Modules) -> None:
    """No object comes back, yet what would be built to answer is told."""
    planned = modules("webapp").plan("size")
    assert planned.nodes == {}
    assert [a.field for a in planned.asked] == ["glob"]
    assert "size" not in planned.graph.results
    lines = tree(planned).splitlines()
    assert lines[0] == "size: integer"
    assert lines[1].startswith("└── asks glob of ")
    assert any("── from " in line for line in lines[2:]), "what is asked about is drawn"


def test_a_function_that_builds_nothing_says_so(modules: Modules) -> None:
    """An answer that needs no build is told apart from an empty plan."""
    assert tree(modules("greeter").plan("greet", "--name", "Ada")) == "greet: string, nothing is built\n"


def test_objects_inside_the_modules_own_are_found(modules: Modules) -> None:
    """A list of own objects gives a result for each core object that one holds."""
    planned = modules("greeter").plan("cards", "--names", "Ada,Bob")
    assert list(planned.graph.results) == ["cards[0].paper", "cards[1].paper"]


def test_no_secret_is_read_or_shown(modules: Modules) -> None:
    """A secret that the function reads is *** to it, and *** is all that the plan can show."""
    planned = modules("careless").plan("build-leaky", "--token", "cmd://echo very-secret")
    text = tree(planned) + json.dumps(planned.to_json("careless"))
    assert "TOKEN=***" in text
    assert "--token=***" in text
    assert "very-secret" not in text.replace("cmd://echo very-secret", "")


def test_a_function_that_raises_has_no_plan(modules: Modules) -> None:
    """The module's own message comes out, as from a call."""
    with pytest.raises(CallError, match="FunctionError: stumbled over the step"):
        modules("greeter").plan("stumble")
