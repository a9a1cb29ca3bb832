"""What a run leaves behind, as tests read it."""

from __future__ import annotations

import shutil
from pathlib import Path

from trainer import checkpoint, metrics


def adapter(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def losses(run: Path) -> dict[int, float]:
    return {int(r["step"]): r["loss"] for r in metrics.read(run / "metrics.jsonl") if "loss" in r}


def cut_back(run: Path, to: int) -> None:
    """Leave the run as a power cut after step `to`'s checkpoint would, with later measurements logged."""
    for folder in checkpoint.folders(run / "checkpoints"):
        if int(folder.name[5:]) > to:
            shutil.rmtree(folder)
    shutil.rmtree(run / "adapter")
    (run / "loss.png").unlink()
