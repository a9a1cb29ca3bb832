"""CI calls the functions that a person calls, and a dependency bot finds every pin."""

from __future__ import annotations

import json
import re
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


def called(text: str) -> set[str]:
    """Function names after `agent-loop call` and its global options."""
    return set(re.findall(r"agent-loop call (?:\$\w+ |--\S+ )*([a-z][a-z-]*)", text))


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


def test_every_function_that_is_called_exists() -> None:
    """A renamed function fails here, not on the next push."""
    functions = registered(find(str(ROOT)), lambda _: None).objects["AgentLoop"].functions
    known = {name.replace("_", "-") for name in functions}
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    dagger = {
        step["with"]["args"].split()[0] for p in WORKFLOWS for step in steps(p) if "dagger" in step.get("uses", "")
    }
    assert called(text) | dagger <= known
    assert {"lint", "test", "smoke", "publish", "sbom", "sign"} <= called(text)
    assert dagger == {"lint", "test", "smoke"}


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
