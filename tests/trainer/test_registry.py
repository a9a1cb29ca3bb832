"""Versions on MLflow's registry: what each came from, which one an alias names, and what is not registered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trainer import checkpoint, demo, registry
from trainer.export import gguf
from trainer.export.errors import RegistryError

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.long]  # MLflow's own warnings
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's trained run with an export beside it that passed."""
    run = tmp_path_factory.mktemp("registry") / "one"
    shutil.copytree(trained, run, symlinks=True)
    (run / "export").mkdir()
    path = Path(shutil.copyfile(demo.FILE, run / "export" / "model-Q8_0.gguf"))
    figures = {"agreement": 1.0, "mean_divergence": 2e-4, "problems": []}
    entry = {"file": path.name, "kind": "q8_0", "digest": gguf.digest(path), "verification": figures}
    (run / "export" / "export.json").write_text(json.dumps({"run": "one", "verified": True, "files": [entry]}))
    return run


@pytest.fixture(autouse=True)
def _own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def models(*words: object, code: int = 0) -> Any:
    done = RUNNER.invoke(registry.app, ["models", *(str(w) for w in words)])
    assert done.exit_code == code, done.output
    return done


def test_register_promote_list(exported: Path) -> None:
    """A version holds data hash, settings, the run's and the export's figures; an alias names one at a time."""
    output = exported.parent
    assert "No versions" in models("list", "--output", output).output
    assert "version 1" in models("register", "one", "--output", output).output
    models("register", "one", "--output", output)
    assert "It was" not in models("promote", 1, "--output", output).output
    assert "It was version 1" in models("promote", 2, "--output", output).output
    lines = models("list", "--output", output).output.splitlines()
    assert [line.split("run")[0].split() for line in lines] == [["2", "[production]"], ["1"]]
    (newest, _) = registry.versions(output)
    state = json.loads((exported / "checkpoints" / "latest" / "state.json").read_text())
    assert newest.tags["data_sha256"] == state["data"]["file"]
    assert json.loads(newest.tags["files"]) == {"q8_0": gguf.digest(demo.FILE)}
    assert newest.source == (exported / "export").resolve().as_uri()
    client = registry._client(output)
    run = client.get_run((exported / "mlflow-run-id").read_text().strip())
    assert run.data.metrics["export.q8_0.agreement"] == 1.0
    assert run.data.metrics["loss"] > 0
    assert run.data.params["lora.rank"] == "64"


def test_promoting_what_is_not_there(exported: Path) -> None:
    """An unknown version ends with 25 and names the list."""
    registry.register(exported)
    assert "agent-loop models list" in models("promote", 999, "--output", exported.parent, code=25).stderr


@pytest.mark.parametrize(
    ("damage", "text"),
    [("no export", "agent-loop export"), ("failed", "Only verified"), ("no checkpoint", "Keep one of the run")],
)
def test_what_is_not_registered(exported: Path, tmp_path: Path, damage: str, text: str) -> None:
    """Without an export that passed and a checkpoint that knows the data, there is no version."""
    run = Path(shutil.copytree(exported, tmp_path / "runs" / "one", symlinks=True))
    report = run / "export" / "export.json"
    if damage == "no export":
        report.unlink()
    elif damage == "failed":
        report.write_text(report.read_text().replace('"verified": true', '"verified": false'))
    else:
        for folder in checkpoint.folders(run / "checkpoints"):
            shutil.rmtree(folder)
    with pytest.raises(RegistryError, match=text) as caught:
        registry.register(run)
    assert caught.value.exit_code == 25
    assert registry.versions(run.parent) == []
