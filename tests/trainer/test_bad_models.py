"""A model's folder with something wrong in it, or a place that cannot be written: one line, and a status of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from trainer.cli import app

pytestmark = pytest.mark.long

WORDS = ["train", "--device", "cpu", "--max-steps", "1", "--set", "data.max_length=96", "--set", "eval.every=0"]


def train(model: Path, output: Path, *words: str) -> Any:
    return CliRunner().invoke(app, [*WORDS, "--model", str(model), "--output", str(output), *words])


def change(name: str, **values: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return apply


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json. Give a folder as"),
        (lambda folder: (folder / "config.json").write_text("{"), "Unreadable config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "it holds a list, not an object. Fetch"),
        (change("config.json", hidden_size="x"), "Unreadable sizes in config.json of 'gemma2'"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "No tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "Unreadable tokenizer"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), "Unreadable tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), "Weights missing or damaged"),
        (cut, "Weights missing or damaged"),
        (change("config.json", intermediate_size=256), "Take weights and config.json from the same"),
    ],
)
def test_a_spoilt_folder(small_base: Path, tmp_path: Path, spoil: Callable[[Path], object], text: str) -> None:
    """Whatever file is missing, cut off or another's, the line names it and says what to fetch; status 8."""
    folder = tmp_path / "model"
    shutil.copytree(small_base, folder)
    spoil(folder)
    done = train(folder, tmp_path / "runs")
    assert done.exit_code == 8, done.output
    assert text in done.stderr


def test_a_card_that_is_full_before_the_first_step(
    small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of memory while weights load is not a step that can be done again: status 14 and the way out."""
    import transformers

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", full)
    done = train(small_base, tmp_path / "runs")
    assert done.exit_code == 14
    assert "Out of memory while the model loads" in done.stderr
    assert "--unload" in done.stderr


def test_a_place_that_cannot_be_written(small_base: Path, tmp_path: Path) -> None:
    """A file where the folder of runs should be: status 2, naming it."""
    (tmp_path / "runs").write_text("in the way")
    done = train(small_base, tmp_path / "runs", "--run-id", "one")
    assert done.exit_code == 2
    assert f"Cannot use {tmp_path / 'runs'}/one: Not a directory" in done.stderr
