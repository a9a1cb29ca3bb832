"""The runtime image, really built by the embedded engine from the module, and really started."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ci.module.conftest import ROOT
from tests.command import agent_loop

pytestmark = pytest.mark.containers

REVISION = "a" * 40
CREATED = "2026-01-02T03:04:05Z"


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def inspect(name: str) -> dict[str, Any]:
    return json.loads(docker("image", "inspect", name))[0]


def layers(name: str) -> list[str]:
    return inspect(name)["RootFS"]["Layers"]


@dataclass(frozen=True)
class Built:
    """An image in Docker, and the folder of sources it was made from."""

    name: str
    source: Path

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`agent-loop call` with these words, in the repository."""
        return agent_loop("call", *words)

    def build(self, name: str, *options: str) -> None:
        """Build the runtime image of `source` and load it as `name`."""
        done = self.call(*options, "build-runtime", f"--source={self.source}", "export-image", f"--name={name}")
        assert done.returncode == 0, done.stderr[-4000:]

    def run(self, *words: str) -> str:
        """Output of the image's own Python with these words, as the image's user."""
        return docker("run", "--rm", "--network", "none", "--entrypoint", "/app/.venv/bin/python", self.name, *words)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The image of a copy of what the stage reads, so that a test may edit it."""
    source = tmp_path_factory.mktemp("source of the service")  # with a space: paths may have one
    shutil.copytree(ROOT / "service", source / "service", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "requirements").mkdir()
    for name in ("service.txt", "uv.txt"):
        shutil.copy(ROOT / "requirements" / name, source / "requirements")
    image = Built(f"al-module-test-{secrets.token_hex(4)}", source)
    try:
        image.build(image.name, f"--revision={REVISION}", f"--created={CREATED}")
        yield image
    finally:
        docker("image", "rm", "--force", image.name, f"{image.name}:edited", check=False)


def test_it_runs_as_a_numeric_user_that_owns_only_its_data(built: Built) -> None:
    """Not root, nothing of the application writable, /data writable."""
    script = (
        "import os, json;"
        "roots = ['/app', '/usr', '/etc'];"
        "mine = [p for r in roots for d, _, fs in os.walk(r) for p in [d, *(os.path.join(d, f) for f in fs)]"
        " if not os.path.islink(p) and os.access(p, os.W_OK)];"
        "open('/data/x', 'w').close();"
        "print(json.dumps([os.getuid(), os.getgid(), mine]))"
    )
    assert json.loads(built.run("-c", script)) == [10001, 10001, []]


def test_nothing_of_the_build_is_left_in_it(built: Built) -> None:
    """No uv, no compiler, no pip in the environment, no caches, no mount points, no test tools."""
    script = (
        "import os, shutil, json, importlib.util as u;"
        "paths = ['/root/.cache', '/mnt/uv.txt', '/mnt/requirements.txt', '/opt/uv', '/.al', '/usr/local/bin/uv'];"
        "print(json.dumps([[w for w in ('uv', 'gcc', 'cc', 'ld') if shutil.which(w)],"
        " [m for m in ('pip', 'pytest', 'torch', 'dagger', 'ruff') if os.path.exists("
        "'/app/.venv/lib/python3.13/site-packages/' + m)],"
        " [p for p in paths if os.path.lexists(p)]]))"
    )
    assert json.loads(built.run("-c", script)) == [[], [], []]


def test_its_configuration_is_as_planned(built: Built) -> None:
    """User, start, health check and labels arrive in the image that Docker holds."""
    config = inspect(built.name)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/app/.venv/bin/python", "-m", "service"]
    assert config["Cmd"] == ["serve"]
    assert config["WorkingDir"] == "/app"
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/app/.venv/bin/python", "-m", "service.healthcheck"]
    labels = {k.rpartition("image.")[2]: v for k, v in config["Labels"].items()}
    assert labels["revision"] == REVISION
    assert labels["created"] == CREATED
    assert labels["base.digest"].startswith("sha256:")


def test_modules_start_from_bytecode_that_was_made_at_build_time(built: Built) -> None:
    """Environment and sources have unchecked bytecode, so nothing is compiled or compared at start."""
    script = (
        "import importlib.util as u, json;"
        "flags = lambda m: int.from_bytes(open(u.find_spec(m).cached, 'rb').read(8)[4:], 'little');"
        "print(json.dumps([flags('service'), flags('service.healthcheck'), flags('fastapi')]))"
    )
    assert json.loads(built.run("-c", script)) == [1, 1, 1]  # PEP 552: hash-based, source not checked


def test_the_service_starts_and_its_health_check_passes(built: Built) -> None:
    """Docker itself says healthy, with a read-only root and no capabilities, and SIGTERM ends it with status 0."""
    name = built.name + "-run"
    hardened = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    environment = ("-e", "AGENT_LOOP_API_KEY=of-this-test", "-e", "AGENT_LOOP_BACKEND=scripted")
    docker("run", "--detach", "--name", name, "--network", "none", *hardened, "-v", "/data", *environment, built.name)
    try:
        end = time.monotonic() + 120
        state: dict[str, Any] = {}
        while time.monotonic() < end:
            state = json.loads(docker("inspect", name))[0]["State"]
            if state["Status"] != "running" or state["Health"]["Status"] == "healthy":
                break
            time.sleep(0.5)
        logs = docker("logs", name, check=False)
        assert state["Status"] == "running", logs[-3000:]
        assert state["Health"]["Status"] == "healthy", state["Health"]["Log"][-1:]
        docker("stop", "--time", "60", name)
        assert json.loads(docker("inspect", name))[0]["State"]["ExitCode"] == 0
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


def test_a_source_edit_adds_one_small_layer_and_reinstalls_nothing(built: Built) -> None:
    """All layers but the last are the very same, and the last holds sources and bytecode alone."""
    (built.source / "service" / "edited.py").write_text("ANSWER = 42\n")
    edited = f"{built.name}:edited"
    try:
        built.build(edited, f"--revision={'b' * 40}", f"--created={CREATED}")
    finally:
        (built.source / "service" / "edited.py").unlink()
    before, after = layers(built.name), layers(edited)
    assert len(before) == len(after)
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]
    sizes = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}", edited).split()
    newest = next(int(size) for size in sizes if int(size))
    sources = sum(p.stat().st_size for p in (built.source / "service").rglob("*") if p.is_file())
    assert newest < 4 * sources + 1_000_000


def test_a_new_commit_without_edits_adds_no_layer(built: Built) -> None:
    """Labels are configuration: every layer is the same."""
    edited = f"{built.name}:edited"
    built.build(edited, f"--revision={'c' * 40}", f"--created={CREATED}")
    assert layers(edited) == layers(built.name)
    assert inspect(edited)["Config"]["Labels"]["org.opencontainers.image.revision"] == "c" * 40
