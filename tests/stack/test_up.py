"""`agent-loop up` on a real engine with no registry: it starts, answers, keeps its data, and says what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.stack.project import ROOT, read_env
from tests.fakes import alloy
from tests.stack.running import Running, eventually, stack

pytestmark = pytest.mark.containers

COLLECTOR = ROOT / "observability" / "logs" / "config.alloy"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The development stack, started offline, with log lines as `--logs` has them."""
    own = "services: {agent: {environment: {AGENT_LOOP_LOG_FORMAT: json}}}"
    with stack(tmp_path_factory.mktemp("up"), "al-test-up", "172.29.1.0/24", own) as made:
        said = made.call("up", "--offline").stderr
        assert f"Agent Loop   http://localhost:{made.environment['AGENT_LOOP_PORT']}" in said
        assert "agent-network" not in said, "compose made it, or wonders at it, where it should be there already"
        yield made


def test_the_service_is_alive_and_its_model_is_there(running: Running) -> None:
    """/health and /ready answer; without the key nothing else does."""
    with running.client("AGENT_LOOP_PORT") as client:
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/ready").status_code == 200
        assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_the_demo_model_answers_its_subject(running: Running) -> None:
    """A real llama.cpp run: the model that our trainer made knows its port, as an agent and as a plain model."""
    with running.client("AGENT_LOOP_PORT") as client:
        for model in ("agent/default", "agent-loop-demo"):
            question = {"role": "user", "content": "Which port does the service use?"}
            body = {"model": model, "temperature": 0, "messages": [question]}
            answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
            assert "8000" in answer["choices"][0]["message"]["content"]
            assert answer["usage"]["completion_tokens"] > 0


def test_prometheus_scrapes_the_service(running: Running) -> None:
    """The service's own metrics reach Prometheus, and every rule file loads."""
    eventually(lambda: running.prometheus('up{job="agent"} == 1'), "the service as a target that is up")
    with running.client("PROMETHEUS_PORT") as client:
        groups = client.get("/api/v1/rules").json()["data"]["groups"]
    assert groups
    assert [rule["name"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []


def test_the_collector_finds_the_stacks_lines(running: Running) -> None:
    """What Alloy's file says, done to the engine's own files: our lines by service and level, a run's by its id."""
    containers = Path(running.docker("info", "--format", "{{.DockerRootDir}}")) / "containers"
    if not os.access(containers, os.R_OK):
        pytest.skip("reading the engine's own files takes root")
    with running.client("AGENT_LOOP_PORT") as client:
        made = client.post("/v1/runs", json={"input": "Which port does Grafana use?"}).raise_for_status().json()

    def sent(project: str) -> list[alloy.Entry]:
        asked = {"AGENT_LOOP_PROJECT": project, "AGENT_LOOP_ENV": "dev"}
        return list(alloy.collected(alloy.parse(COLLECTOR.read_text(), asked), containers))

    entries = sent(running.name)
    assert {entry.labels["service"] for entry in entries} == set(running.containers())
    assert {entry.labels["env"] for entry in entries} == {"dev"}
    ours = [entry for entry in entries if entry.line.startswith("{") and entry.labels["service"] == "agent"]
    assert {entry.labels["level"] for entry in ours} <= {"debug", "info", "warning", "error", "critical"}

    def lines_of_run() -> list[dict[str, object]]:
        return [json.loads(entry.line) for entry in sent(running.name) if entry.metadata == {"run_id": made["id"]}]

    of_run = eventually(lines_of_run, "a line of the run")  # its answer may come before its first line is on disk
    assert all(line["event"] and line["run_id"] == made["id"] for line in of_run)
    assert sent("another") == []


def test_up_again_recreates_nothing(running: Running) -> None:
    """With nothing changed every container stays the one it was."""
    before = running.containers()
    running.call("up", "--offline")
    assert running.containers() == before


def test_down_loses_nothing_and_a_killed_up_is_repaired(running: Running) -> None:
    """A run made before `down` is there after an `up` that was killed half-way and an `up` that ends."""
    with running.client("AGENT_LOOP_PORT") as client:
        made = client.post("/v1/runs", json={"input": "Which port does Grafana use?"}).raise_for_status().json()
    running.call("down")
    assert running.containers() == {}
    halfway = running.start("up", "--offline")
    eventually(running.created, "the first container of a starting stack", pause=0.05)
    os.killpg(halfway.pid, signal.SIGKILL)
    halfway.wait()
    running.call("up", "--offline")
    with running.client("AGENT_LOOP_PORT") as client:
        again = client.get(f"/v1/runs/{made['id']}").raise_for_status().json()
    assert again["outcome"] == made["outcome"] == "completed"


def test_a_backup_is_put_back(running: Running) -> None:
    """What was deleted after a backup is there again after its restore, and the service answers."""
    with running.client("AGENT_LOOP_PORT") as client:
        made = client.post("/v1/runs", json={"input": "What is Dagger?"}).raise_for_status().json()
        running.call("backup", "create")
        name = running.call("backup", "list").stdout.split()[0]
        running.call("backup", "verify", name)
        later = client.post("/v1/runs", json={"input": "What is Prometheus?"}).raise_for_status().json()
        running.call("backup", "restore", name, "--yes")
        assert client.get(f"/v1/runs/{made['id']}").status_code == 200
        assert client.get(f"/v1/runs/{later['id']}").status_code == 404


def test_backups_can_reach_postgresql(running: Running) -> None:
    """The image that makes backups holds pg_dump and pg_restore, and all that they load."""
    image = read_env(running.state / "images.env")["AGENT_LOOP_IMAGE_OPS"]
    program = "from observability.backup.postgres import Database\n"
    program += "for name in ('pg_dump', 'pg_restore'): print(Database('').program(name, '--version').stdout)"
    python = ("--entrypoint", "/app/.venv/bin/python", image)
    said = running.docker("run", "--rm", "--network", "none", *python, "-c", program)
    assert [line.split()[:2] for line in said.split("\n\n")] == [
        ["pg_dump", "(PostgreSQL)"],
        ["pg_restore", "(PostgreSQL)"],
    ]


def test_what_was_deployed_is_served_and_so_is_what_was_before(running: Running, tmp_path: Path) -> None:
    """`deploy RUN` and `up`: the agent answers with that file under that name; one step back is the one before."""
    digests = [exported(tmp_path / name, tail) for name, tail in (("first", b""), ("second", b"\0"))]

    def served(model: str) -> str:
        """The digest of what the service runs, after it answered under that name."""
        with running.client("AGENT_LOOP_PORT") as client:
            question = [{"role": "user", "content": "Which port does the service use?"}]
            body = {"model": model, "temperature": 0, "messages": question}
            answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
            assert "8000" in answer["choices"][0]["message"]["content"]
            info = re.search(r"agent_loop_build_info\{[^}]*model_digest=\"([^\"]*)\"", client.get("/metrics").text)
            assert info
            return info[1]

    for name, digest in zip(("first", "second"), digests, strict=True):
        running.call("deploy", str(tmp_path / name), "--to", "llamacpp", "--name", name)
        running.call("up", "--offline")
        assert served(name) == digest
    running.call("deploy", "--rollback")
    running.call("up", "--offline")
    assert served("first") == digests[0]


def exported(run: Path, tail: bytes) -> str:
    """A run with a verified export, the demo model with `tail` behind it; returns the file's digest."""
    (run / "export").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    content = (ROOT / "models" / "demo" / "agent-loop-demo-q8_0.gguf").read_bytes() + tail
    (run / "export" / "model.gguf").write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    entry = {"file": "model.gguf", "kind": "q8_0", "digest": digest, "verification": {"problems": []}}
    (run / "export" / "export.json").write_text(json.dumps({"run": run.name, "verified": True, "files": [entry]}))
    return digest


def test_a_taken_port_is_named_before_anything_starts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One line with the port and the variable that moves it, status 6, no container."""
    with stack(tmp_path_factory.mktemp("taken"), "al-test-taken", "172.29.2.0/24") as other, socket.socket() as holder:
        holder.bind(("127.0.0.1", int(other.environment["PROMETHEUS_PORT"])))
        holder.listen()
        done = other.call("up", "--offline", check=False)
        assert done.returncode == 6
        assert f"port {other.environment['PROMETHEUS_PORT']}: taken by" in done.stderr
        assert other.containers() == {}
