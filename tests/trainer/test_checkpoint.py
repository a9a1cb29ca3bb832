"""Checkpoints as files: whole or not at all, verified, pruned, and honest about a full disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import checkpoint, randomness
from trainer.checkpoint import Identity, State
from trainer.config import resolve
from trainer.errors import CheckpointError, DiskFull


def write(root: Path, step: int, **state: Any) -> Path:
    identity = Identity(resolve("tiny").config, "digest", "file", versions={"torch": "1"})
    return checkpoint.save(
        root,
        State(step=step, **state),
        identity,
        adapter={"a": torch.full((2,), float(step))},
        adapter_config="{}",
        optimizer={"state": {0: {"step": step}}, "param_groups": []},
        rng=[randomness.state()],
    )


def test_round_trip(tmp_path: Path) -> None:
    """What was saved comes back: weights, moments, cursor, counters; `latest` names it."""
    write(tmp_path, 3)
    write(tmp_path, 7, epoch=2, position=5, micro=1, losses=[1.5], skipped=[4], best_loss=0.5)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.state == State(step=7, epoch=2, position=5, micro=1, losses=[1.5], skipped=[4], best_loss=0.5)
    assert loaded.adapter["a"].tolist() == [7.0, 7.0]
    assert loaded.optimizer["state"][0]["step"] == 7
    assert (tmp_path / "latest").resolve().name == "step-0000007"


def test_random_states_come_back(tmp_path: Path) -> None:
    """Python, NumPy and torch draw after a load what they drew after the save."""
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    write(tmp_path, 1)
    expected = draw()
    draw()
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    randomness.restore(loaded.rng[0])
    assert draw() == expected


def test_nothing_there(tmp_path: Path) -> None:
    """No checkpoints is no error: the run begins."""
    assert checkpoint.load(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["truncate", "delete", "flip", "manifest"])
def test_damage_is_seen(tmp_path: Path, damage: str) -> None:
    """Any changed, cut or missing file disqualifies a checkpoint; with none left the error says how to restore."""
    folder = write(tmp_path, 1)
    victim = folder / ("manifest.json" if damage == "manifest" else "adapter_model.safetensors")
    content = victim.read_bytes()
    if damage == "delete":
        victim.unlink()
    elif damage == "flip":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        victim.write_bytes(content[: len(content) // 2])
    assert checkpoint.verify(folder)
    with pytest.raises(CheckpointError, match="backup restore") as caught:
        checkpoint.load(tmp_path)
    assert caught.value.exit_code == 10


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    """Pruning leaves `keep` checkpoints and the one of the best evaluation."""
    for step in range(6):
        write(tmp_path, step)
    checkpoint.prune(tmp_path, 2, best_step=1)
    assert [int(f.name[5:]) for f in checkpoint.folders(tmp_path)] == [1, 4, 5]


def test_an_unfinished_write_is_not_a_checkpoint(tmp_path: Path) -> None:
    """A folder that never got its name is ignored and swept away; the same step can be written again."""
    write(tmp_path, 1)
    (tmp_path / ".unfinished-step-0000002-1").mkdir()
    (tmp_path / ".unfinished-latest-1").symlink_to("step-0000002")  # killed before the link got its name
    assert [f.name for f in checkpoint.folders(tmp_path)] == ["step-0000001"]
    checkpoint.clean_unfinished(tmp_path)
    write(tmp_path, 1, epoch=9)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.state.epoch == 9
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-0000001"]


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's `no space left` becomes a message with what to do; nothing half-written stays."""
    write(tmp_path, 1)

    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(
        DiskFull, match=r"Disk full at checkpoint step-0000002.*The checkpoint before is intact"
    ) as caught:
        write(tmp_path, 2)
    assert caught.value.exit_code == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-0000001"]
    assert checkpoint.verify(tmp_path / "step-0000001") == []


def test_differences_are_named(tmp_path: Path) -> None:
    """Settings, data, processes and versions that changed are listed; equal ones are not."""
    folder = write(tmp_path, 1)
    other = Identity(resolve("tiny", sets=["lora.rank=2"]).config, "other", "newfile", 2, {"torch": "2"})
    assert checkpoint.differences(folder, other) == [
        "lora.rank: 16 -> 2",
        "data: file sha256 file -> newfile",
        "processes: 1 -> 2",
        "torch: 1 -> 2",
    ]
    record = json.loads((folder / "state.json").read_text())
    assert set(record["versions"]) == {"torch"}


def test_random_states_of_cards_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run saved where two cards were seen goes on where one is."""
    put: list[list[int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [0, 1])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", put.append)
    randomness.restore(randomness.state())
    assert put == [[0]]
