"""A remote cache in a registry: a builder that has nothing starts warm, as the CI workflow does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from ci.engine import Options, Session
from tests.ci.registry import running

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

WORKFLOW = Path(__file__).resolve().parents[3] / ".github" / "workflows" / "ci.yml"


def made(word: str, copy: str, lines: list[str], **environment: str) -> tuple[str, str]:
    """Run a step that makes other files each time it runs; the content of one, and what names the step's results.

    The files are copies of each other. Asking for another one leaves no stage after the step to be found in a cache.
    """
    options = Options.from_environment(environment)
    session = Session(options=Options(cache_to=options.cache_to, cache_from=options.cache_from, progress=lines.append))
    try:
        busybox = session.answer('{host{file(path:"/bin/busybox"){id}}}')[1]["data"]["host"]["file"]["id"]
        chain = (
            f'container{{withFile(path:"/busybox", source:"{busybox}"){{'
            f'withExec(args:["/busybox","sh","-c","/busybox tee /a /b /c < /proc/sys/kernel/random/uuid # {word}"]){{'
        )
        answer = session.answer(f'{{{chain}file(path:"/{copy}"){{contents}}}}}}}}}}')[1]
        assert "errors" not in answer, answer
        node = session.find(
            session.answer(f"{{{chain}id}}}}}}}}")[1]["data"]["container"]["withFile"]["withExec"]["id"]
        )
        assert node is not None
        return answer["data"]["container"]["withFile"]["withExec"]["file"]["contents"], session.get(node).step.key[:40]
    finally:
        session.close()


def forget(step: str) -> None:
    """Take from the builder what it has of one step, and nothing else: its layer, and its results."""
    told = subprocess.run(["docker", "buildx", "du", "--verbose"], capture_output=True, text=True, check=True).stdout
    records = [r for r in told.split("\n\n") if step in r]
    assert records, "the builder has nothing of the step"
    for record in records:
        found = re.search(r"^ID:\s+(\S+)", record, re.MULTILINE)
        assert found
        words = ["docker", "buildx", "prune", "--force", "--all", "--filter", f"id={found[1]}"]
        subprocess.run(words, check=True, capture_output=True)


def test_a_cold_builder_starts_with_what_the_registry_has(tmp_path: Path) -> None:
    """The settings of the workflow, on loopback: what one build left in the registry the next one takes from there."""
    workflow = WORKFLOW.read_text()
    assert "AGENT_LOOP_CACHE_FROM: type=registry,ref=" in workflow
    assert "'type=registry,ref=ghcr.io/{0}/cache,mode=max'" in workflow
    word, lines = uuid4().hex, list[str]()
    with running(tmp_path) as registry:
        cache = f"type=registry,ref={registry.address}/agent-loop/cache"
        first, step = made(word, "a", lines, AGENT_LOOP_CACHE_TO=f"{cache},mode=max")
        assert registry.get("agent-loop/cache/tags/list")["tags"] == ["latest"]
        forget(step)
        assert made(word, "b", lines)[0] != first, "a builder that has nothing, and no cache, runs the step"
        forget(step)
        del lines[:]
        assert made(word, "c", lines, AGENT_LOOP_CACHE_FROM=cache)[0] == first
        assert any(f"importing cache manifest from {registry.address}" in line for line in lines)
