"""CI calls the functions that a person calls, and a dependency bot finds every pin."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from agent_loop_ci import bases, supply

from ci.cli import find as find_command
from ci.engine.module.session import registered
from ci.engine.module.source import find
from tests.ci.module.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

UNPINNED = {
    "dagger/dagger-for-github": "its commit for the tag could not be looked up here; renovate pins it on its first run",
}
"""Actions that are named by tag, and why."""


def jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["jobs"]


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job["steps"]]


def commands(path: Path) -> list[list[str]]:
    """The words after `agent-loop call` in shell steps, and those that the Dagger action is given."""
    found: list[list[str]] = []
    for step in steps(path):
        script = step.get("run", "").replace("\\\n", " ")
        found += [
            shlex.split(line.partition("agent-loop call ")[2].partition(" > ")[0].replace(" -o ", " --output "))
            for line in script.splitlines()
            if "agent-loop call " in line
        ]
        if "dagger/" in step.get("uses", ""):
            found.append(shlex.split(step["with"]["args"]))
    return found


def options(words: list[str]) -> set[str]:
    """Names of the options among some words, as Python writes them."""
    return {word.partition("=")[0].lstrip("-").replace("-", "_") for word in words if word.startswith("--")}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_actions_are_pinned_by_commit_or_excused(path: Path) -> None:
    """A moved tag cannot change what runs with our token."""
    for step in steps(path):
        if "uses" in step:
            name, _, version = step["uses"].partition("@")
            assert re.fullmatch(r"[0-9a-f]{40}", version) or name in UNPINNED, step["uses"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_the_token_may_read_and_nothing_more_unless_a_job_says_so(path: Path) -> None:
    """Least privilege, and a time limit on every job."""
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 120 for job in jobs(path).values())


RELEASE = ["--revision=x", "--created=x", "--version=x"]
"""What the variable of this name holds in the release workflow."""


def test_every_function_and_argument_that_is_called_exists() -> None:
    """A renamed function, option or value fails here, not on the next push."""
    module = registered(find(str(ROOT)), lambda _: None).objects["AgentLoop"]
    assert module.constructor is not None
    called: set[str] = set()
    for command in [c for path in WORKFLOWS for c in commands(path)]:
        words = [word for given in command for word in (RELEASE if given == "$RELEASE" else [given])]
        at = next(number for number, word in enumerate(words) if not word.startswith("-"))
        function = module.functions[words[at].replace("-", "_")]
        called.add(words[at])
        known = {a.name for a in function.arguments}
        assert options(words[:at]) <= {a.name for a in module.constructor.arguments}, command
        if words[at + 1 : at + 2] == ["export"]:
            assert options(words[at + 1 :]) <= {"path"}, command
        else:
            assert options(words[at + 1 :]) <= known | {"output"}, command
            needed = {a.name for a in function.arguments if a.required and not a.default_path}
            assert needed <= options(words[at + 1 :]), command
    assert called >= {"lint", "test", "smoke", "publish", "sbom", "scan", "sign"}


def test_a_dagger_engine_and_ours_are_asked_the_same() -> None:
    """The checks of the module run on both in every push."""
    functions = registered(find(str(ROOT)), lambda _: None).objects["AgentLoop"].functions
    checks = {name for name, f in functions.items() if f.check}
    found = [c[0] for c in commands(next(p for p in WORKFLOWS if p.stem == "ci"))]
    assert sorted(found) == sorted([*checks, *checks])


def test_every_command_that_is_run_exists() -> None:
    """Words after `agent-loop` are rows of the command table."""
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    words = set(re.findall(r"bin/agent-loop ([a-z-]+)", text))
    assert words
    assert {word for word in words if find_command(word) is None} == set()


def matches(name: str) -> list[dict[str, str]]:
    """What renovate's own patterns find in a file (JavaScript's named groups lack Python's P)."""
    config = json.loads((ROOT / "renovate.json").read_text())
    path = next(p for p in (ROOT / "ci/src/agent_loop_ci").glob("*.py") if p.name == name)
    manager = next(
        m
        for m in config["customManagers"]
        if re.search(m["managerFilePatterns"][0].strip("/"), str(path.relative_to(ROOT)))
    )
    pattern = manager["matchStrings"][0].replace("(?<", "(?P<")
    return [m.groupdict() for m in re.finditer(pattern, path.read_text())]


def test_the_bot_finds_every_base_with_tag_and_digest() -> None:
    """All bases of the pin file, none missed."""
    found = {f"{m['depName']}:{m['currentValue']}@{m['currentDigest']}" for m in matches("bases.py")}
    pinned = {value.address for value in vars(bases).values() if isinstance(value, bases.Base)}
    assert found == pinned


def test_the_bot_finds_every_tool_with_its_version() -> None:
    """The supply chain's own tools are kept up to date too."""
    found = {(m["depName"], m["currentValue"]) for m in matches("supply.py")}
    pinned = {(t.module, t.version) for t in vars(supply).values() if isinstance(t, supply.Tool)}
    assert found == pinned
