"""Real processes and real kills: two services on one store, SIGKILL at random points of a run with tools."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import journal
from tests.fakes.programs import free_port

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
FACTORY = ["-m", "uvicorn", "--factory", "tests.fakes.journal:create", "--no-access-log", "--timeout-graceful-shutdown"]


def until(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"Not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return value


class Service:
    """A service in a process of its own, with several workers if asked."""

    def __init__(self, folder: Path, name: str, workers: int = 1, **settings: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log = folder / f"{name}.log"
        environment = {
            **os.environ,
            "JOURNAL": str(folder / "journal"),
            "AGENT_LOOP_DATA_DIR": str(folder),
            "AGENT_LOOP_BACKEND": "scripted",
            "AGENT_LOOP_MODEL": "scripted",
            "AGENT_LOOP_LEASE_SECONDS": "1.5",
            "AGENT_LOOP_POLL_SECONDS": "0.1",
            "AGENT_LOOP_DRAIN_SECONDS": "2",
            **settings,
        }
        command = [sys.executable, *FACTORY, "10", "--port", str(port), "--workers", str(workers)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.http = httpx.Client(base_url=self.url, timeout=60)
        until(self.answers, f"{name} answers: {self.log.read_text()[-2000:]}")

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def start_run(self) -> str:
        """A run in the background."""
        answer = self.http.post("/v1/runs", json={"input": "go", "background": True})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def kill(self) -> None:
        """SIGKILL to everything of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.http.close()


@contextmanager
def service(folder: Path, name: str, **settings: Any) -> Generator[Service]:
    started = Service(folder, name, **settings)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()


def events(reader: Service, run_id: str) -> list[dict[str, Any]]:
    """The whole log, once the run has ended."""
    until(lambda: reader.http.get(f"/v1/runs/{run_id}").json()["status"] == "ended", f"{run_id} ends")
    return list(reader.http.get(f"/v1/runs/{run_id}/events?stream=false&limit=1000").json()["data"])


def check(log: list[dict[str, Any]], folder: Path) -> int:
    """What must hold after any crash; returns how many calls of the log were cut short by one."""
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    assert [event["type"] for event in log].count("run.ended") == 1
    ended = log[-1]
    assert (ended["type"], ended["data"]["outcome"]) == ("run.ended", "completed")
    assert ended["data"]["output"] == "All of it is done."
    assert ended["data"]["steps"] == journal.STEPS + 1
    started = [event["data"]["id"] for event in log if event["type"] == "tool.started"]
    done = {event["data"]["id"]: event["data"] for event in log if event["type"] == "tool.completed"}
    assert len(started) == len(set(started)) == len(done) == 2 * journal.STEPS
    begun = Counter((call, tool) for what, call, tool, _ in journal.entries(folder / "journal") if what == "begin")
    for call, data in done.items():
        times = begun[call, data["name"]]
        # A call with an effect is never made twice; one that may be repeated has its result in the end.
        assert times <= 1 if data["name"] == "write" else times >= 1, f"{data} was made {times} times"
        assert data["ok"] or data["name"] == "write"
        assert times == 1 or data["name"] == "look" or not data["ok"], f"{data} says it was done"
    return sum(not data["ok"] for data in done.values())


def kill_at(folder: Path, points: list[float]) -> int:
    """One run for each point (seconds after its start), whose process is killed there; the other one finishes it."""
    cut = 0
    with service(folder, "survivor") as survivor:
        for number, point in enumerate(points):
            (folder / "journal").unlink(missing_ok=True)
            with service(folder, f"victim-{number}") as victim:
                run_id = victim.start_run()
                time.sleep(point)
                victim.kill()
                cut += check(events(survivor, run_id), folder)
    return cut


@pytest.mark.slow
def test_a_kill_loses_no_finished_step(tmp_path: Path) -> None:
    """Killed among its tools, a run goes on in the other process and ends once."""
    kill_at(tmp_path, [0.5])


@pytest.mark.slow
def test_twenty_kills_at_random_points(tmp_path: Path) -> None:
    """At whatever point the process dies: one gapless log, one ending, no finished call made again."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kill_at(tmp_path, [chance.uniform(0.0, 1.6) for _ in range(20)])


def test_workers_share_their_work(tmp_path: Path) -> None:
    """Two workers of one service: either answers for both, also with its metrics; a killed one's run is finished by
    another, and its place is filled again."""
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    folder = str(metrics)
    with service(tmp_path, "workers", workers=2, PROMETHEUS_MULTIPROC_DIR=folder) as both:
        first = both.start_run()
        check(events(both, first), tmp_path)
        (tmp_path / "journal").unlink()
        second = both.start_run()
        *_, (_, _, _, owner) = until(lambda: journal.entries(tmp_path / "journal"), "a tool runs")
        os.kill(owner, signal.SIGKILL)
        both.http.close()  # its connection may have died with the worker
        both.http = httpx.Client(base_url=both.url, timeout=60, transport=httpx.HTTPTransport(retries=5))
        check(events(both, second), tmp_path)
        (tmp_path / "journal").unlink()
        third = both.start_run()
        check(events(both, third), tmp_path)
        page = both.http.get("/metrics").text
        assert 'agent_loop_runs_total{outcome="completed"} 3.0' in page
