"""The whole way as a person types it, in an empty folder: train, Ctrl-C, go on, export, deploy, an answer served."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from trainer import checkpoint, served, status

pytestmark = pytest.mark.long

RUN = Path("runs") / "first"
TRAIN = ("train", "--model", "tiny", "--run-id", "first", "--max-steps", "8", "--gguf", "q8_0", "--gguf", "q4_k_m")


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """`start("train", ...)`: agent-loop in the empty folder, with no hub, no Ollama and one thread."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AGENT_LOOP", "HF_", "OLLAMA", "MLFLOW"))}
    environment = kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OLLAMA_HOST": "127.0.0.1:9"}

    def run(*words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "ci.cli", *words],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2]), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def finished(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Its output and errors; fails where its status is another."""
    out, err = process.communicate(timeout=500)
    assert process.returncode == code, f"{out}\n{err}"
    return out, err


def until(true: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Wait for something while the process lives."""
    deadline = time.monotonic() + 400
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_from_nothing_to_an_answer(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Interrupted once, the same words finish the run; its verified GGUF is what the service then answers with."""
    run = tmp_path / RUN
    training = start(*TRAIN)
    until(lambda: (found := status.read(run)) and found.step >= 2, training)
    training.send_signal(signal.SIGINT)
    _, err = finished(training, code=75)
    assert "saved. Run the same command to go on." in err
    (stopped,) = [int(f.name[5:]) for f in checkpoint.folders(run / "checkpoints")][-1:]
    assert 2 <= stopped < 8

    out, err = finished(start(*TRAIN, AGENT_LOOP_GGUF_FOLDER=str(tmp_path / "gguf")))
    assert f"Going on from step {stopped} of 8." in err
    assert "Trained 8 steps" in out
    report = json.loads((run / "export" / "export.json").read_text())
    assert report["verified"]
    assert [f["kind"] for f in report["files"]] == ["q8_0", "q4_k_m"]
    for file in report["files"]:
        assert file["verification"]["same_tokens"] == 32
    assert (run / "export" / "Modelfile").read_text().startswith("FROM ./model-Q8_0.gguf")

    copied = {path.name for path in (tmp_path / "gguf" / "first").iterdir()}
    assert {"export.json", "model-Q8_0.gguf", "model-Q4_K_M.gguf", "Modelfile", "Modelfile.Q4_K_M"} == copied

    out, _ = finished(start("deploy", "first"))
    assert "target: llamacpp" in out
    settings = dict(word.split("=", 1) for word in out.split() if word.startswith("AGENT_LOOP_"))
    record = json.loads((tmp_path / "state" / served.FILE).read_text())
    assert record["digest"] == report["files"][0]["digest"]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = start("serve", "--port", str(port), **settings, AGENT_LOOP_DATA_DIR=str(tmp_path / "data"))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:

            def ready() -> bool:
                try:
                    return client.get("/ready").status_code == 200
                except httpx.TransportError:
                    return False

            until(ready, service)
            asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
            reply = client.post("/v1/chat/completions", json={"model": "agent-loop", **asked})
            assert reply.status_code == 200, reply.text
            assert reply.json()["usage"]["completion_tokens"] > 0
    finally:
        service.terminate()
        service.communicate(timeout=60)
