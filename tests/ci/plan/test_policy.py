"""Policies on plans."""

from pathlib import Path
from typing import Any

import pytest

from ci.engine.plan.planner import Planned, image_functions
from ci.engine.plan.policy import Finding, check, unused
from ci.engine.plan.rules import RULES
from ci.engine.plan.settings import BadSettings, Settings, Silence, load, read

from .conftest import Modules, Opened

TITLE_ONLY = Settings(labels=("org.opencontainers.image.title",))


_PLANNED: dict[str, list[Planned]] = {}


def findings(opened: Opened, settings: Settings = TITLE_ONLY) -> list[Finding]:
    """All findings of a module; its functions are planned once for all tests."""
    name = opened.source.name
    if name not in _PLANNED:
        _PLANNED[name] = [opened.planner.of(each) for each in image_functions(opened.catalog)]
    return [f for planned in _PLANNED[name] for f in check(planned, settings)]


class TestRules:
    """Each rule finds the module that breaks it, and only that."""

    @pytest.mark.parametrize(
        ("function", "rule", "word"),
        [
            ("build-floating", "pinned-base", "python:3.13-slim."),
            ("build-root", "numeric-user", "no user"),
            ("build-named-user", "numeric-user", "www-data"),
            ("build-leaky", "no-secret", "TOKEN=***"),
            ("build-leaky", "no-secret", "--token=***"),
            ("build-caching", "no-cache", "/var/lib/apt/lists"),
            ("build-caching", "no-cache", "/root/.cache/pip"),
            ("build-busting", "dependencies-first", "/src"),
            ("build-runtime", "lean-runtime", "gcc"),
            ("build-runtime", "lean-runtime", "uv is used"),
            ("build-runtime", "lean-runtime", "--group dev"),
            ("build-runtime", "torch-in-training", "torch"),
            ("build-runtime", "health-check", "no health check"),
            ("build-runtime", "labels", "org.opencontainers.image.title"),
        ],
    )
    def test_it_finds_what_breaks_it(self, modules: Modules, function: str, rule: str, word: str) -> None:
        """The finding names function, rule and the very thing that is wrong."""
        found = [f for f in findings(modules("careless")) if (f.function, f.rule) == (function, rule)]
        assert any(word in f.message for f in found), found

    def test_it_leaves_the_rest_alone(self, modules: Modules) -> None:
        """A function that breaks one rule is told of no other."""
        by_function: dict[str, set[str]] = {}
        for f in findings(modules("careless")):
            by_function.setdefault(f.function, set()).add(f.rule)
        assert {name: rules for name, rules in by_function.items() if name != "build-runtime"} == {
            "build-floating": {"pinned-base"},
            "build-root": {"numeric-user"},
            "build-named-user": {"numeric-user"},
            "build-leaky": {"no-secret"},
            "build-caching": {"no-cache"},
            "build-busting": {"dependencies-first"},
        }

    def test_a_good_image_breaks_none(self, modules: Modules) -> None:
        """The module that builds as one should has one complaint: its builder has no user."""
        assert [(f.function, f.rule) for f in findings(modules("webapp"))] == [("build-builder", "numeric-user")]

    def test_training_may_hold_torch(self, modules: Modules) -> None:
        """Where the project calls a function training, torch is in its place."""
        settings = Settings(training=("build-runtime",), rules=("torch-in-training",))
        assert findings(modules("careless"), settings) == []


class TestSilences:
    """A project may say that a rule does not count somewhere, if it says why."""

    def test_a_silenced_finding_keeps_its_reason(self, modules: Modules) -> None:
        """It is still told, with the reason, and counts as silenced."""
        silence = Silence("numeric-user", "build-*builder", "never started")
        found = findings(modules("webapp"), Settings(labels=(), silences=(silence,)))
        assert [f.silenced for f in found] == [silence]
        assert str(found[0]).endswith("(silenced: never started)")

    def test_one_that_nothing_needs_is_told(self, modules: Modules) -> None:
        """When the reason for a silence is gone, so should the silence be."""
        stale = Silence("pinned-base", "*", "no reason any more")
        found = findings(modules("webapp"), Settings(silences=(stale,)))
        assert unused((stale,), found) == [stale]


class TestSettings:
    """`[tool.agent-loop.policy]`."""

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"silence": [{"rule": "labels"}]}, "Silence without a reason, rule labels"),
            ({"silence": [{"rule": "labels", "reason": " "}]}, "Silence without a reason, rule labels"),
            ({"silence": [{"rule": "lables", "reason": "x"}]}, "Unknown policy, lables"),
            ({"silence": [{"reason": "x"}]}, "Silence without a rule"),
            ({"rules": ["nope"]}, "Unknown policy, nope"),
            ({"rules": "labels"}, "Policy setting is no list of words"),
            ({"rule": ["labels"]}, "Unknown policy setting, rule"),
        ],
    )
    def test_a_mistake_is_told(self, table: dict[str, Any], message: str) -> None:
        """With the value, the file, and what to write instead."""
        with pytest.raises(BadSettings) as caught:
            read(table, RULES, Path("pyproject.toml"))
        assert str(caught.value).startswith(message)
        assert "pyproject.toml" in str(caught.value)

    def test_the_first_folder_that_has_them_counts(self, tmp_path: Path) -> None:
        """The module's root is asked before its Python project."""
        (tmp_path / "ci").mkdir()
        (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
        (tmp_path / "ci" / "pyproject.toml").write_text("[tool.agent-loop.policy]\ntraining = ['train']\n")
        assert load([tmp_path, tmp_path / "ci"], RULES).training == ("train",)
