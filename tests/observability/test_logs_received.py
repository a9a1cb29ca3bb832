"""A real server with Loki's push API takes what the collector makes of our lines, and finds a run's lines by its id.

Loki cannot be had here; VictoriaLogs (Apache-2.0) accepts the same requests. It is built from its Go module once.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import httpx
import pytest

from service.telemetry import logs
from tests.fakes import alloy
from tests.fakes.programs import Programs, free_port
from tests.stack.running import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

VERSION = "v1.52.1"
CACHE = Path(os.environ.get("AGENT_LOOP_CACHE") or Path.home() / ".cache" / "agent-loop") / "tools"
CONFIG = Path(__file__).parents[2] / "observability" / "logs" / "config.alloy"


@pytest.fixture(scope="module")
def program() -> Path:
    """VictoriaLogs, from the cache of an earlier run or built now."""
    kept = CACHE / f"victoria-logs-{VERSION}"
    if kept.exists():
        return kept
    if shutil.which("go") is None:
        pytest.skip("no Go here to build VictoriaLogs with")
    made = CACHE / f"go-{os.getpid()}"
    made.mkdir(parents=True)
    try:
        module = f"github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs@{VERSION}"
        settings = {"GOBIN": str(made), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
        done = subprocess.run(["go", "install", module], env=os.environ | settings, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"Go cannot build VictoriaLogs here: {done.stderr.strip()[-300:]}")
        (made / "victoria-logs").rename(kept)
    finally:
        shutil.rmtree(made)
    return kept


@pytest.fixture(scope="module")
def received(program: Path, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The server, with a run's lines, another's, and one of a program that writes no JSON."""
    address = f"127.0.0.1:{free_port()}"
    folder = tmp_path_factory.mktemp("victoria-logs")
    words = [program, f"-storageDataPath={folder}", f"-httpListenAddr={address}", "-loki.disableMessageParsing"]
    programs.start(words, f"http://{address}/health")
    with httpx.Client(base_url=f"http://{address}") as client:
        body = pushed([*collected("agent", said()), *collected("ollama", ["llama runner started\n"])])
        answer = client.post("/insert/loki/api/v1/push", json=body)
        assert answer.is_success, answer.text
        eventually(lambda: found(client, "* | stats count() lines") == [{"lines": "5"}], "every line to be searchable")
        yield client


def said() -> list[str]:
    """What the service writes inside of two runs."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.configure(form="json", stream=stream)
        for run in ("run_1", "run_2"):
            with logs.bound(run_id=run):
                logging.getLogger("service").info("started")
                logging.getLogger("service").error("ended")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    return stream.getvalue().splitlines(keepends=True)


def collected(service: str, lines: list[str]) -> Iterator[alloy.Entry]:
    """Lines of a service's container after the collector's stages."""
    config = alloy.parse(CONFIG.read_text(), {"AGENT_LOOP_PROJECT": "ours", "AGENT_LOOP_ENV": "prod"})
    of_compose = {"com.docker.compose.project": "ours", "com.docker.compose.service": service}
    for text in lines:
        kept = {"log": text, "stream": "stderr", "attrs": of_compose, "time": datetime.now(UTC).isoformat()}
        if entry := alloy.processed(config.one("loki.process"), alloy.Entry(json.dumps(kept), {})):
            yield entry


def pushed(entries: list[alloy.Entry]) -> dict[str, object]:
    """The body of a push request, as Loki's HTTP API documents it: lines with their metadata, by their labels."""

    def labels(entry: alloy.Entry) -> list[tuple[str, str]]:
        return sorted(entry.labels.items())

    def value(entry: alloy.Entry) -> list[object]:
        nanoseconds = int(datetime.fromisoformat(entry.time).timestamp() * 1_000_000) * 1000
        return [str(nanoseconds), entry.line, entry.metadata]

    streams = groupby(sorted(entries, key=labels), labels)
    return {"streams": [{"stream": dict(key), "values": [value(one) for one in group]} for key, group in streams]}


def found(client: httpx.Client, query: str) -> list[dict[str, str]]:
    """The lines of a query in LogsQL, waited for: what was pushed is searchable after a moment."""

    def ask() -> list[dict[str, str]]:
        answer = client.get("/select/logsql/query", params={"query": query}).raise_for_status()
        return [json.loads(line) for line in answer.text.splitlines()]

    lines: list[dict[str, str]] = eventually(ask, f"lines for {query}", seconds=60, pause=0.2)
    return lines


def test_a_runs_lines_are_found_by_its_id(received: httpx.Client) -> None:
    """The id is no label and finds its lines all the same; they are the service's own, to the byte."""
    lines = found(received, '{service="agent",env="prod"} run_id:="run_1"')
    assert sorted(line["level"] for line in lines) == ["error", "info"]
    assert {json.loads(line["_msg"])["run_id"] for line in lines} == {"run_1"}
    assert {line["_stream"] for line in lines} == {
        '{env="prod",level="error",service="agent"}',
        '{env="prod",level="info",service="agent"}',
    }


def test_errors_are_counted_by_service(received: httpx.Client) -> None:
    """A program's own errors are found by level, across runs."""
    lines = found(received, 'level:in("error","critical") | stats by (service) count() lines')
    assert lines == [{"service": "agent", "lines": "2"}]


def test_a_program_without_json_is_searched_by_its_words(received: httpx.Client) -> None:
    """Its line stands under its service, without a level."""
    (line,) = found(received, '"llama runner"')
    assert (line["service"], line["env"], line.get("level")) == ("ollama", "prod", None)
