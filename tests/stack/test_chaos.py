"""Each container of the production stack is killed, paused and cut off in turn while people use the agent.

The test writes what they saw, and for how long, to `reports/chaos.md`; docs/chaos.md is a copy of one run.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ci.stack.project import ROOT
from tests.stack.running import Running, eventually, stack
from tests.stack.test_end_to_end import SCRIPTED

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1200)]

IN_THE_WAY = {"nginx", "agent"}
"""What a user's request passes through; nobody may notice the loss of anything else."""
SERVICES = ("agent", "alert-sink", "alertmanager", "backup", "drift", "nginx", "node-exporter", "prometheus")
REPORT = ROOT / "reports" / "chaos.md"


@dataclass(frozen=True)
class Seen:
    """What people saw during one fault: requests, those that failed, and seconds from the first to the last failure."""

    service: str
    fault: str
    asked: int
    failed: int
    seconds: float

    def row(self) -> str:
        """A line of the table."""
        return f"| {self.service} | {self.fault} | {self.asked} | {self.failed} | {self.seconds:.1f} |"


class People:
    """One person asking again and again, in a new session each time, until told to stop."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.stop = threading.Event()
        self.asked = 0
        self.failures: list[float] = []
        self.streak = 0
        """Good answers since the last failure."""
        self.last = ""
        """What the last failure was."""
        self.thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self.stop.is_set():
            self.asked += 1
            try:
                run = self.client.post("/v1/runs", json={"input": "What is 6*7?"}, timeout=5)
                good = run.status_code == 200 and run.json()["outcome"] == "completed"
                self.last = self.last if good else f"{run.status_code} {run.text[:300]}"
            except httpx.HTTPError as error:
                good, self.last = False, repr(error)
            if good:
                self.streak += 1
            else:
                self.failures.append(time.monotonic())
                self.streak = 0
            self.stop.wait(0.1)

    def __enter__(self) -> People:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def unserved(self) -> None:
        """Nothing, or an AssertionError with what went wrong for as long as nothing goes well."""
        assert not self.last or self.streak, self.last

    def lasted(self) -> float:
        """Seconds from the first failure to the last."""
        return self.failures[-1] - self.failures[0] if self.failures else 0.0


def kill(running: Running, service: str) -> None:
    """The main process dies, as in a crash; the engine starts the container again."""
    os.kill(int(running.docker("inspect", running.containers()[service], "--format", "{{.State.Pid}}")), signal.SIGKILL)


def pause(running: Running, service: str) -> None:
    """The container is frozen for some seconds."""
    running.docker("pause", running.containers()[service])
    time.sleep(4)
    running.docker("unpause", running.containers()[service])


def disconnect(running: Running, service: str) -> None:
    """The container loses the stack's network for some seconds."""
    network, identity = f"{running.name}_agent-network", running.containers()[service]
    running.docker("network", "disconnect", network, identity)
    time.sleep(4)
    running.docker("network", "connect", "--alias", service, network, identity)


FAULTS: dict[str, Callable[[Running, str], None]] = {"killed": kill, "paused": pause, "disconnected": disconnect}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The production stack, started offline."""
    with stack(tmp_path_factory.mktemp("chaos"), "al-test-chaos", "172.29.4.0/24", SCRIPTED) as made:
        made.call("up", "prod", "--offline")
        yield made


@pytest.fixture(scope="module")
def table() -> Iterator[list[Seen]]:
    """What every fault showed, written out at the end."""
    seen: list[Seen] = []
    yield seen
    lines = ["| container | fault | requests | failed | seconds of failures |", "| --- | --- | --- | --- | --- |"]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join([*lines, *(each.row() for each in seen)]) + "\n")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("service", SERVICES)
def test_people_go_on(running: Running, table: list[Seen], service: str, fault: str) -> None:
    """Only the loss of what requests pass through shows, and it ends by itself; the stack is whole again after."""
    with running.client("HTTPS_PORT", tls=True) as client, People(client) as people:
        eventually(lambda: people.streak > 3 or people.unserved(), "people are served before the fault")
        people.failures.clear()
        FAULTS[fault](running, service)
        eventually(lambda: people.streak > 10 or people.unserved(), f"people are served after {service} was {fault}")
    table.append(Seen(service, fault, people.asked, len(people.failures), people.lasted()))
    if service not in IN_THE_WAY:
        assert people.failures == []
    eventually(lambda: set(SERVICES) <= set(running.containers()), "every container runs again")


def test_the_report_was_written_for_every_fault(table: list[Seen]) -> None:
    """Each container met each fault."""
    assert {(seen.service, seen.fault) for seen in table} == {(s, f) for s in SERVICES for f in FAULTS}


def test_the_published_table_speaks_of_the_same_containers() -> None:
    """docs/chaos.md has a line for each container and fault."""
    published = (Path(ROOT) / "docs" / "chaos.md").read_text()
    assert [f"| {s} | {f} |" for s in SERVICES for f in FAULTS if f"| {s} | {f} |" not in published] == []
