"""The jobs of the image `ops` as programs: they start, answer, and end when told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from observability.cli import app
from tests.fakes.programs import Programs, free_port

pytestmark = pytest.mark.in_image
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (["gpu-monitor", "--log", "gpu.jsonl", "--runs", "runs"], "gpu_up"),
        (["drift", "serve", "--rows", "runs.db", "--state", "drift", "--url", ""], "agent_loop_probe_failures_total"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_job_serves_health_and_metrics(words: list[str], shows: str, programs: Programs, tmp_path: Path) -> None:
    """With nothing there to watch (no GPU, no runs, no store) a job still answers and exports its metrics."""
    port = free_port()
    placed = [str(tmp_path / word) if words[n - 1] in ("--log", "--runs", "--rows", "--state") else word
              for n, word in enumerate(words)]  # fmt: skip
    command = [sys.executable, "-m", "observability", *placed, "--host", "127.0.0.1", "--port", str(port)]
    programs.start(command, f"http://127.0.0.1:{port}/health")
    assert httpx.get(f"http://127.0.0.1:{port}/health").json()["status"] == "ok"
    assert f"\n{shows} " in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert httpx.get(f"http://127.0.0.1:{port}/../../etc/passwd").status_code == 404


def test_the_sink_refuses_an_empty_token(tmp_path: Path) -> None:
    """A secret that was never filled in must not mean that everybody may post."""
    (tmp_path / "token").write_text("\n")
    command = [sys.executable, "-m", "observability", "alert-sink", "--token-file", str(tmp_path / "token")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("agent-loop: Empty token")


@pytest.mark.parametrize("job", ["alert-sink", "gpu-monitor"])
def test_a_job_ends_on_sigterm(job: str, tmp_path: Path) -> None:
    """Exit status 0, so that a container that is stopped did not fail."""
    log = str(tmp_path / "log.jsonl")
    command = [sys.executable, "-m", "observability", job, "--log", log, "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        assert "on port" in process.stderr.readline()
        process.terminate()
        assert process.wait(20) == 0


def test_drift_reads_the_store_of_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file that the service's own variable names says where its rows are; an empty one means the usual file."""
    monkeypatch.setenv("AGENT_LOOP_DATABASE_URL_FILE", str(tmp_path / "url"))
    (tmp_path / "url").write_text("postgresql://agent:hunter2@127.0.0.1:1/runs\n")
    done = CliRunner().invoke(app, ["drift", "run", "--state", str(tmp_path)])
    assert "127.0.0.1:1/runs" in done.stderr
    assert "hunter2" not in done.stderr
    (tmp_path / "url").write_text("")
    assert "/data/runs.db" in CliRunner().invoke(app, ["drift", "run", "--state", str(tmp_path)]).stderr
