"""The production stack with no registry in reach, from `up` to `down`: what a user, an operator and a pager see.

The agent plays the scripted backend, so that tools, failures and a bad variant are certain; everything else is real:
nginx, Prometheus, Alertmanager, the alert sink, the drift and backup jobs, the canary controller.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.stack.running import Running, eventually, restart_engine, stack

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1500)]

SCRIPTED = """
services:
  agent: &scripted
    environment:
      AGENT_LOOP_BACKEND: scripted
      AGENT_LOOP_MODEL: scripted
      AGENT_LOOP_AGENTS: "{}"
  agent-canary: *scripted
"""
GOLDEN = {"id": "echo", "prompt": "the sky is blue", "contains": ["blue"]}
CANARY = ("--steps", "50,100", "--samples", "20", "--min-seconds", "20", "--max-seconds", "600", "--poll", "5")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The production stack, started offline."""
    with stack(tmp_path_factory.mktemp("prod"), "al-test-prod", "172.29.3.0/24", SCRIPTED) as made:
        said = made.call("up", "prod", "--offline").stderr
        assert f"https://localhost:{made.environment['HTTPS_PORT']}" in said
        yield made


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx.Client]:
    """A client that comes through nginx, with the key."""
    with running.client("HTTPS_PORT", tls=True) as made:
        yield made


@contextmanager
def load(client: httpx.Client, question: str) -> Iterator[list[int]]:
    """Ask a question over and over, each time in a new session, until the block ends; collects the statuses."""
    stop, statuses = threading.Event(), list[int]()

    def ask() -> None:
        while not stop.is_set():
            try:
                new = {"X-Session-Id": uuid.uuid4().hex}  # else the proxy keeps all of a key's requests together
                statuses.append(client.post("/v1/runs", json={"input": question}, headers=new).status_code)
            except httpx.HTTPError:
                statuses.append(0)
            stop.wait(0.2)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask)
        try:
            yield statuses
        finally:
            stop.set()


def variant(running: Running, name: str, *changes: str) -> str:
    """An image like the served one but for `changes` (chained fields of a container), by digest."""
    tag = f"agent-loop/{name}:test"
    running.call("call", "build-runtime", *changes, "export-image", "--name", tag)
    return f"agent-loop/{name}@{running.docker('image', 'inspect', tag, '--format', '{{.Id}}')}"


class TestDoor:
    """nginx is the only way in."""

    def test_only_https_and_only_with_the_key(self, running: Running, client: httpx.Client) -> None:
        """HTTP sends to HTTPS, a wrong key is refused, metrics are not for outsiders."""
        plain = httpx.get(f"http://127.0.0.1:{running.environment['HTTP_PORT']}/v1/models")
        assert plain.status_code in (301, 308)
        assert plain.headers["location"].startswith("https://")
        assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/metrics").status_code == 404

    def test_a_stream_arrives_as_it_is_made(self, client: httpx.Client) -> None:
        """Chunks of a slow answer come one by one, not at the end together."""
        body = {"model": "agent/default", "stream": True, "messages": [{"role": "user", "content": "slowly"}]}
        arrived: list[float] = []
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    arrived.append(time.monotonic())
                if len(arrived) > 20:
                    break
        gaps = [later - earlier for earlier, later in itertools.pairwise(arrived[2:])]
        # The script waits 0.1 s between words: a buffered answer would have no gap at all.
        assert sorted(gaps)[len(gaps) // 2] > 0.03

    def test_a_run_uses_a_tool(self, client: httpx.Client) -> None:
        """The agent calls the calculator and answers with its result; the events tell each step."""
        run = client.post("/v1/runs", json={"input": "What is 12*7?"}).raise_for_status().json()
        assert run["outcome"] == "completed"
        assert "84" in json.dumps(run)
        events = client.get(f"/v1/runs/{run['id']}/events", headers={"Accept": "text/event-stream"}).text
        assert "calculator" in events

    def test_its_numbers_reach_prometheus(self, running: Running) -> None:
        """The runs above are counted by outcome, and every target that can be here is up."""
        eventually(
            lambda: running.prometheus('sum(agent_loop_runs_total{job="agent",outcome="completed"}) > 0'),
            "completed runs in Prometheus",
        )
        eventually(lambda: not running.prometheus('up{job!="cadvisor"} == 0'), "no target down but cAdvisor")


class TestCanary:
    """A release is decided by numbers."""

    def release(self, running: Running, image: str, name: str, golden: Path) -> tuple[int, str]:
        done = running.call(
            "canary", "start", "--image", image, "--variant", name, "--golden", str(golden), *CANARY, check=False
        )
        return done.returncode, done.stderr

    def test_a_good_variant_is_promoted(self, running: Running, client: httpx.Client, tmp_path: Path) -> None:
        """An image that differs by a label takes every step and is then the served one; no request is lost."""
        (tmp_path / "golden.jsonl").write_text(json.dumps(GOLDEN) + "\n")
        image = variant(running, "good", "with-label", "--name", "test", "--value", "good")
        with load(client, "What is 12*7?") as statuses:
            status, said = self.release(running, image, "good", tmp_path / "golden.jsonl")
            for _ in range(2):  # noise in latencies may leave a release undecided, which is no harm: start it again
                if "inconclusive" in said:
                    status, said = self.release(running, image, "good", tmp_path / "golden.jsonl")
        assert status == 0, said
        assert "agent-canary" not in running.containers()
        served = running.docker("inspect", running.containers()["agent"], "--format", "{{.Config.Image}}")
        assert served == image
        assert set(statuses) <= {200, 201, 429}, "new sessions go to the canary while the service itself restarts"

    def test_a_bad_variant_is_rolled_back(self, running: Running, client: httpx.Client, tmp_path: Path) -> None:
        """An image whose runs end at their first step passes the gate, gets some sessions, and goes away again."""
        (tmp_path / "golden.jsonl").write_text(json.dumps(GOLDEN) + "\n")
        image = variant(running, "bad", "with-env-variable", "--name", "AGENT_LOOP_MAX_STEPS", "--value", "1")
        before = running.containers()["agent"]
        with load(client, "What is 12*7?"):
            status, said = self.release(running, image, "bad", tmp_path / "golden.jsonl")
        assert status == 1, said
        # Whichever is first: the gate, or the alert that the variant's failures set off.
        assert "limits_hit" in said or "RunSuccessFastBurn" in said, said
        assert "agent-canary" not in running.containers()
        assert running.containers()["agent"] == before


class TestTrouble:
    """Faults reach a pager, and nothing is lost."""

    def test_a_burning_budget_reaches_the_sink(self, running: Running, client: httpx.Client) -> None:
        """Injected failures fire the fast-burn alert, and Alertmanager delivers it with its runbook."""

        def delivered() -> bool:
            lines = running.inside("alert-sink", "cat", "/logs/alerts.jsonl", check=False)
            return "FastBurn" in lines and "docs/runbooks/" in lines

        with load(client, "please fail"):
            eventually(delivered, "a fast-burn page in the sink's log", 600)

    def test_the_restart_of_the_engine_is_survived(self, running: Running, client: httpx.Client) -> None:
        """Every container comes back by itself, with its runs."""
        run = client.post("/v1/runs", json={"input": "What is 2+2?"}).raise_for_status().json()
        before = running.containers()
        restart_engine()
        eventually(lambda: running.containers() == before, "the same containers, running again")
        found = eventually(
            lambda: client.get(f"/v1/runs/{run['id']}").raise_for_status().json(), "an answer through nginx"
        )
        assert found["outcome"] == "completed"

    def test_down_and_up_lose_nothing(self, running: Running, client: httpx.Client) -> None:
        """A run, the backups and Prometheus's samples are there after `down` and `up`."""
        run = client.post("/v1/runs", json={"input": "What is 3+3?"}).raise_for_status().json()
        running.call("backup", "create")
        kept = running.call("backup", "list").stdout.split()[0]
        sampled = 'max_over_time(up{job="agent"}[30m])'
        eventually(lambda: running.prometheus(sampled), "a sample of the service")
        running.call("down")
        assert running.containers() == {}
        running.call("up", "prod", "--offline")
        again = eventually(
            lambda: client.get(f"/v1/runs/{run['id']}").raise_for_status().json(), "an answer through nginx"
        )
        assert again["outcome"] == "completed"
        assert kept in running.call("backup", "list").stdout
        assert running.prometheus(sampled)


class TestUpgrade:
    """New code is taken into service with a way back."""

    def image(self, running: Running) -> str:
        """What the agent's container runs."""
        return running.docker("inspect", running.containers()["agent"], "--format", "{{.Config.Image}}")

    def test_upgrade_backs_up_and_replaces_and_rollback_undoes_it(self, running: Running, client: httpx.Client) -> None:
        """From an image that differs by a label to the working tree's and back; runs and a backup outlive both."""
        run = client.post("/v1/runs", json={"input": "What is 4+4?"}).raise_for_status().json()
        new = self.image(running)
        old = variant(running, "old", "with-label", "--name", "test", "--value", "old")
        record = running.state / "images.env"
        (running.state / "images.previous.env").write_text(record.read_text().replace(new, old))
        running.call("rollback")
        assert self.image(running) == old
        newest = running.call("backup", "list").stdout.split()[0]
        assert "Upgraded" in running.call("upgrade").stderr
        upgraded = self.image(running)
        assert upgraded != old
        assert running.call("backup", "list").stdout.split()[0] > newest
        assert "what ran already" in running.call("upgrade").stderr
        running.call("rollback")
        assert self.image(running) == old
        again = eventually(lambda: client.get(f"/v1/runs/{run['id']}").raise_for_status().json(), "the run")
        assert again["outcome"] == "completed"
