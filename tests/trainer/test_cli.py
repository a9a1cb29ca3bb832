"""The commands as a person meets them: words in, lines and exit statuses out."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trainer import development, tiny
from trainer import hub as hub_module
from trainer.cli import app
from trainer.data import EXAMPLES
from trainer.errors import ConfigError, TrainerError
from trainer.export import errors as _export_errors  # noqa: F401 - their statuses count too

pytestmark = pytest.mark.long

RUNNER = CliRunner()


def run(*words: object) -> Any:
    return RUNNER.invoke(app, [str(w) for w in words])


class TestLightness:
    @pytest.mark.parametrize(
        "words",
        [
            ["--help"],
            ["train", "--help"],
            ["train", "--dry-run", "--model", "tiny"],
            ["train", "--dry-run", "--model", "gemma-2b", "--card", "rtx-4090"],
            ["data", "check", str(EXAMPLES)],
        ],
    )
    def test_looking_imports_neither_torch_nor_transformers(self, words: list[str]) -> None:
        """Help, plan and data check answer without the libraries that take seconds to import."""
        code = (
            "import sys\nsys.argv = ['trainer', *sys.argv[1:]]\n"
            "from trainer.__main__ import main\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
            "heavy = {'torch', 'transformers', 'peft', 'bitsandbytes', 'mlflow'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


class TestDryRun:
    def test_a_named_card_needs_neither_card_nor_weights(self) -> None:
        """The plan of a gated model for an RTX 4090, with memory by part and what was chosen by whom."""
        done = run("train", "--dry-run", "--model", "gemma-2b", "--card", "rtx-4090")
        assert done.exit_code == 0, done.output
        assert "model.id = google/gemma-2-2b-it (preset gemma-2b)" in done.output
        assert "GiB of 23.3 GiB on rtx-4090" in done.output
        assert "flex_attention" in done.output

    def test_what_does_not_fit(self) -> None:
        """Its own exit status, and a length that would fit."""
        done = run("train", "--dry-run", "--model", "gemma-9b", "--card", "8gb")
        assert done.exit_code == 4
        assert "--set data.max_length=1024" in done.stderr

    def test_leaves_nothing(self, tmp_path: Path) -> None:
        """A dry run writes no run folder."""
        assert run("train", "--dry-run", "--model", "tiny", "--output", tmp_path / "runs").exit_code == 0
        assert not (tmp_path / "runs").exists()


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "code", "text"),
        [
            (["--set", "lora.rank=0", "--set", "x.y=1"], 2, "Unknown setting 'x.y'"),
            (["--data", "/nowhere.jsonl"], 3, "Unreadable data"),
            (["--device", "cuda"], 5, "No GPU, run.device=cuda"),
            (["--model", "./nowhere"], 2, "No such folder"),
            (["--run-id", ".."], 2, "Not a run's name"),
            (["--set", "data.max_length=100000"], 2, "beyond the model's context, 4096"),
            (["--resume", "nowhere"], 2, "No run 'nowhere'"),
            (["--gguf", "q5_k_m"], 2, "Use one of f16, q8_0, q4_k_m"),
            (["--device", "cpu", "--set", "memory.attention=flex_attention"], 2, "no backward pass on a CPU. Use auto"),
        ],
    )
    def test_each_has_its_line_and_status(self, tmp_path: Path, words: list[str], code: int, text: str) -> None:
        """One line that names value and place, and the documented exit status."""
        if "--device" in words and shutil.which("nvidia-smi"):
            pytest.skip("this machine has a card")
        done = run("train", "--model", "tiny", "--output", tmp_path, *words)
        assert done.exit_code == code, done.output
        assert text in done.stderr

    def test_bad_lines_of_data(self, tmp_path: Path) -> None:
        """`data check` names each line and ends with 3."""
        path = tmp_path / "d.jsonl"
        path.write_text('{"text": "fine"}\n{"text": 3}\nnonsense\n')
        done = run("data", "check", path)
        assert done.exit_code == 3
        assert "line 2: 'text' is int, not text" in done.stderr
        assert "line 3: Not JSON" in done.stderr

    def test_what_cannot_be_exported_is_not_trained(self, tmp_path: Path) -> None:
        """With --gguf a family that our writer does not know, or a tokenizer that it cannot use, ends the plan."""
        folder = tiny.make_tokenizer(tmp_path / "base")
        config = json.loads((folder / "config.json").read_text())
        words = ["train", "--dry-run", "--model", str(folder), "--gguf", "q8_0", "--device", "cpu"]
        assert run(*words).exit_code == 0
        (folder / "tokenizer.model").unlink()
        assert (found := run(*words)).exit_code == 22
        assert "No tokenizer.model" in found.output
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
        assert (found := run(*words)).exit_code == 21
        assert "--gguf would fail after training" in found.output
        assert "not 'llama'" in found.output
        assert "--converter official" in found.output
        assert run(*words[:4], "--device", "cpu").exit_code == 0, "training itself is for any decoder"

    def test_custom_needs_model_and_data(self) -> None:
        """train-custom says what is missing; the preset commands are train with the model filled in."""
        done = run("train-custom", "--model", "tiny")
        assert done.exit_code == 2
        assert "--data FILE" in done.stderr
        done = run("train-gemma-9b", "--dry-run", "--card", "h100")
        assert "google/gemma-2-9b-it" in done.output


class _Hub(BaseHTTPRequestHandler):
    """The hub's answers for a gated, a missing and a failing model."""

    def do_GET(self) -> None:
        gated, failing = "gated" in self.path, "failing" in self.path
        self.send_response(403 if gated else 500 if failing else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "" if failing else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class TestHub:
    @pytest.mark.parametrize(
        ("model", "code", "text"),
        [
            ("some/gated", 6, "No access to the gated model some/gated. Accept its licence"),
            ("some/missing", 6, "No model some/missing on the hub"),
            ("some/failing", 7, "some/failing"),
            ("nobody/listens", 7, "cannot be reached"),
        ],
    )
    def test_every_refusal_says_the_way_out(self, hub: str, tmp_path: Path, model: str, code: int, text: str) -> None:
        """No token, no such model, a failing hub and no hub at all are told apart."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": "http://127.0.0.1:9" if model == "nobody/listens" else hub,
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "trainer", "train", "--dry-run", "--model", model],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr


def test_the_hub_token_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers get secrets as files: HF_TOKEN_FILE is read, HF_TOKEN wins, an empty file is no token."""
    path = tmp_path / "token"
    path.write_text("hf_secret\n")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_FILE", str(path))
    assert hub_module._token() == "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert hub_module._token() is None
    monkeypatch.delenv("HF_TOKEN")
    path.write_text("")
    assert hub_module._token() is None
    monkeypatch.setenv("HF_TOKEN_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"HF_TOKEN_FILE=.*nowhere"):
        hub_module._token()


def test_jupyter_has_a_token_that_no_process_list_shows(tmp_path: Path) -> None:
    """train-dev listens on the address it was given, and gives the token by environment alone."""
    found = development.commands(tmp_path, "127.0.0.1", 8888, 6006)
    assert "--ip=127.0.0.1" in found["jupyterlab"]
    assert not any("token" in word.lower() for words in found.values() for word in words if str(tmp_path) not in word)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device", "/disk/x"), RuntimeError("I/O: No space left on device (28)")],
)
def test_a_full_disk_anywhere(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whoever finds the disk full, and in whatever kind of error, the status is 12 and the line says what to do."""

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("trainer.status.runs", full)
    done = run("train-status")
    assert done.exit_code == 12
    assert "Free space" in done.stderr


def test_exit_statuses_are_all_different_and_documented() -> None:
    """Every error has its own status, and the page that lists them has each."""

    def below(kind: type[TrainerError]) -> list[type[TrainerError]]:
        kinds = [sub for sub in kind.__subclasses__() if sub.__module__.startswith("trainer.")]
        return [kind, *(k for sub in kinds for k in below(sub))]

    codes = {kind.__name__: kind.exit_code for kind in below(TrainerError)}
    assert {"Stopped", "VerificationFailed", "DeployError", "RegistryError"} < codes.keys()
    assert len(set(codes.values())) == len(codes)
    page = (Path(__file__).parents[2] / "docs" / "trainer.md").read_text()
    for name, code in codes.items():
        assert f"| {code} | {name} |" in page, name
    listed = {int(line.split("|")[1]) for line in page.splitlines() if re.match(r"\| \d+ \| \w+ \|", line)}
    assert listed == set(codes.values())
