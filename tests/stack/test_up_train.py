"""The training stack with no registry in reach, from `up train` to `down`: train, look, back up, go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ci.stack.project import ROOT
from tests.fakes.programs import free_port
from tests.stack.room import needed
from tests.stack.running import Running, eventually

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1800)]

NAME = "al-test-train"
PORTS = ("JUPYTER_PORT", "TENSORBOARD_PORT", "TRACKING_PORT", "TRAINING_PROMETHEUS_PORT", "GPU_MONITOR_PORT")
STEPS = 4
TRAIN = ("--model", "tiny", "--run-id", "first", "--max-steps", STEPS, "--set", "run.log_every=1")
SERVICES = {"jupyter", "tensorboard", "tracking", "prometheus", "gpu-monitor", "backup"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The training stack, started offline under another name than a person's."""
    # Measured: 51 at the peak. Layers 7 + 14, their way into the engine's store 21, stored and unpacked, uv's cache.
    needed(55, "building the training image")
    state = tmp_path_factory.mktemp("train") / "state"
    state.mkdir(mode=0o700)
    environment = {
        "AGENT_LOOP_PROJECT": NAME,
        "AGENT_LOOP_TRAIN_PROJECT": NAME,
        "AGENT_LOOP_STATE": str(state),
        "TRAINING_NETWORK_SUBNET": "172.29.6.0/24",
        **{port: str(free_port()) for port in PORTS},
    }
    made = Running(state, environment)
    try:
        said = made.call("up", "train", "--offline").stderr
        assert f"Jupyter Lab  http://localhost:{environment['JUPYTER_PORT']}" in said
        yield made
    finally:
        made.call("down", "train", "--volumes", "--yes", check=False)


@pytest.fixture(scope="module")
def trained(running: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of the tiny preset in the training container, on a file of this machine."""
    data = tmp_path_factory.mktemp("mine") / "chats.jsonl"
    examples = (ROOT / "trainer" / "data" / "examples" / "chats.jsonl").read_text().splitlines()
    data.write_text("\n".join(examples[:60]) + "\n")
    said = running.call("job", "train", *map(str, TRAIN), "--data", str(data)).stdout
    assert f"Trained {STEPS} steps" in said
    assert "data.path = /input/chats.jsonl" in said
    return "first"


def ask(running: Running, port: str, path: str, **words: Any) -> httpx.Response:
    """A published page's answer."""
    return httpx.get(f"http://127.0.0.1:{running.environment[port]}{path}", timeout=60, **words)


def losses(running: Running) -> list[tuple[int, float]]:
    """Step and loss as MLflow's page knows them, of its only run."""
    address = f"http://127.0.0.1:{running.environment['TRACKING_PORT']}/api/2.0/mlflow"
    words = {"experiment_name": "agent-loop"}
    experiment = httpx.get(f"{address}/experiments/get-by-name", params=words, timeout=60).raise_for_status().json()
    body = {"experiment_ids": [experiment["experiment"]["experiment_id"]]}
    (run,) = httpx.post(f"{address}/runs/search", json=body, timeout=60).raise_for_status().json()["runs"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("first", "FINISHED")
    words = {"run_id": run["info"]["run_id"], "metric_key": "loss"}
    history = httpx.get(f"{address}/metrics/get-history", params=words, timeout=60).raise_for_status().json()
    return [(int(metric["step"]), float(metric["value"])) for metric in history["metrics"]]


def backed_up(running: Running) -> list[str]:
    """Ids of the backups that exist."""
    return [line.split()[0] for line in running.call("backup", "list").stdout.splitlines()]


def test_everything_runs_and_nothing_else(running: Running) -> None:
    """Six services are healthy; the job that gives volumes their owner is over, and no trainer waits idly."""
    assert set(running.containers()) == SERVICES


def test_jupyter_wants_the_token(running: Running) -> None:
    """Without it no file and no kernel; with it the folder of the runs."""
    token = running.call("secrets", "show", "jupyter").stdout.strip()
    assert len(token) > 30
    assert ask(running, "JUPYTER_PORT", "/api/contents").status_code == 403
    assert ask(running, "JUPYTER_PORT", "/api/kernels", headers={"Authorization": "token wrong"}).status_code == 403
    found = ask(running, "JUPYTER_PORT", "/api/contents", headers={"Authorization": f"token {token}"})
    assert found.raise_for_status().json()["type"] == "directory"
    assert ask(running, "JUPYTER_PORT", f"/lab?token={token}", follow_redirects=True).status_code == 200


def test_a_notebook_s_kernel_has_the_trainer(running: Running) -> None:
    """A kernel starts under the read-only root, and computes with what a notebook needs."""
    code = "import torch, trainer.config; print('sum', int(torch.ones(3).sum()))"
    script = (
        "from jupyter_client.manager import start_new_kernel\n"
        "manager, client = start_new_kernel(startup_timeout=120)\n"
        f"client.execute_interactive({code!r}, timeout=120)\n"
        "manager.shutdown_kernel()\n"
    )
    assert "sum 3" in running.inside("jupyter", "/app/.venv/bin/python", "-c", script)


def test_the_run_is_on_every_page(running: Running, trained: str) -> None:
    """The tracking page and TensorBoard tell the losses that the run's own file does."""
    lines = running.inside("jupyter", "cat", f"/checkpoints/{trained}/metrics.jsonl").splitlines()
    records = [json.loads(line) for line in lines]
    own = [(record["step"], pytest.approx(record["loss"], rel=1e-5)) for record in records if "loss" in record]
    assert [step for step, _ in own] == list(range(1, STEPS + 1))
    assert losses(running) == own

    def drawn() -> list[tuple[int, float]]:
        words = {"run": f"{trained}/tensorboard", "tag": "train/loss"}
        answer = ask(running, "TENSORBOARD_PORT", "/data/plugin/scalars/scalars", params=words).raise_for_status()
        return [(step, value) for _, step, value in answer.json()]

    assert eventually(drawn, "the loss in TensorBoard") == own
    assert ask(running, "TRACKING_PORT", "/").status_code == 200
    assert ask(running, "TENSORBOARD_PORT", "/").status_code == 200


def test_a_strange_name_does_not_reach_the_tracking_page(running: Running) -> None:
    """A web site that points its own name at this machine is refused."""
    assert ask(running, "TRACKING_PORT", "/", headers={"Host": "evil.example"}).status_code == 403


def test_the_commands_on_runs(running: Running, trained: str) -> None:
    """Status, log and stop find the run from a container of their own."""
    assert f"{STEPS}/{STEPS}" in running.call("job", "train-status").stdout
    assert f"step {STEPS}" in running.call("job", "train-logs", trained).stdout
    assert "finished" in running.call("job", "train-stop", trained).stdout


def test_prometheus_sees_the_side(running: Running, trained: str) -> None:
    """No card is there and that is said; backups and the run have their numbers; rules load; no target is down."""
    eventually(lambda: running.prometheus("gpu_up == 0"), "gpu_up 0")
    eventually(lambda: running.prometheus("backup_last_success_timestamp_seconds > 0"), "the time of a backup")
    eventually(lambda: running.prometheus(f"training_step == {STEPS}"), "the run's step")
    eventually(lambda: not running.prometheus("up == 0"), "no target down")
    groups = ask(running, "TRAINING_PROMETHEUS_PORT", "/api/v1/rules").raise_for_status().json()["data"]["groups"]
    assert groups
    assert [rule["name"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []
    assert json.loads(running.inside("jupyter", "head", "-n1", "/logs/gpu_metrics.jsonl"))["gpu_up"] == 0


def test_a_run_is_put_back_from_a_backup(running: Running, trained: str) -> None:
    """What was deleted after a verified backup is there again, owned by the trainer, and the tracking page answers."""
    running.call("backup", "create", "--what", "checkpoints")
    name = backed_up(running)[0]
    assert "whole" in running.call("backup", "verify", name).stdout
    running.inside("jupyter", "rm", "-r", f"/checkpoints/{trained}/checkpoints")
    running.call("backup", "restore", name, "--yes")
    kept = running.inside("jupyter", "ls", f"/checkpoints/{trained}/checkpoints")
    assert f"step-{STEPS:07d}" in kept
    assert running.inside("jupyter", "stat", "-c", "%u", f"/checkpoints/{trained}/checkpoints").strip() == "1000"
    eventually(lambda: losses(running), "the tracking page after the restore")


def test_down_and_up_keep_the_runs(running: Running, trained: str) -> None:
    """Runs, what the pages know of them, and backups are there after `down` and `up`."""
    before, kept = losses(running), backed_up(running)
    running.call("down", "train")
    assert running.containers() == {}
    running.call("up", "train", "--offline")
    assert set(running.containers()) == SERVICES
    assert losses(running) == before
    assert set(kept) <= set(backed_up(running))
    assert "finished" in running.call("job", "train-status").stdout


def test_up_again_recreates_nothing(running: Running) -> None:
    """With nothing changed every container stays the one it was."""
    before = running.containers()
    running.call("up", "train", "--offline")
    assert running.containers() == before


def test_clean_asks(running: Running, trained: str) -> None:
    """Deleting checkpoints needs a yes, and names them; the adapter stays."""
    said = running.call("job", "train-clean", trained, "--yes").stdout
    assert f"step-{STEPS:07d}" in said
    assert running.inside("jupyter", "ls", f"/checkpoints/{trained}/adapter")


def test_a_page_that_is_down_ends_no_run(running: Running, tmp_path: Path) -> None:
    """Without the tracking page a run says so and trains on."""
    running.docker("stop", f"{NAME}-tracking-1")
    said = running.call("job", "train", "--model", "tiny", "--run-id", "second", "--max-steps", "1")
    assert "Trained 1 steps" in said.stdout
    assert "Tracker 'mlflow' failed and is left out" in said.stdout + said.stderr
