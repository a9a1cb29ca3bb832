"""A run folder as training leaves it, made in a second: a small base with random weights and a random adapter.

Random weights make every logit matter, so they show a wrong byte as well as trained ones do.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer import config, tiny

SIZES = {"num_hidden_layers": 2, "intermediate_size": 512}
RANK = 8


def write_adapter(folder: Path, base: Path, scale: float = 0.3, seed: int = 1, **settings: object) -> Path:
    """Write a LoRA adapter for every linear weight of `base`, as PEFT does."""
    from trainer.export.merge import place
    from trainer.export.weights import Weights

    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(seed)
    weights = Weights(base)
    tensors: dict[str, torch.Tensor] = {}
    for name in weights:
        shape = weights.shape(name)
        if place(name) and len(shape) == 2:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, shape[1], generator=draw) / shape[1] ** 0.5
            tensors[f"{stem}.lora_B.weight"] = torch.randn(shape[0], RANK, generator=draw) * scale * 0.1
            if settings.get("use_dora"):
                norm = weights.read(name).float().norm(dim=1)
                tensors[f"{stem}.lora_magnitude_vector"] = norm * 1.1
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "bias": "none", "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps({**said, **settings}))
    return folder


def write_run(folder: Path) -> Path:
    """A run of the preset `tiny` with a smaller base, up to where an export begins."""
    base = tiny.make(folder / "base", **SIZES)
    settings = config.resolve("tiny", options={"lora.rank": RANK, "lora.alpha": 16})
    settings.save(folder / "config.json")
    write_adapter(folder / "adapter", base)
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for the whole session: read, never write outside its export folder."""
    torch.set_num_threads(1)
    return write_run(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="session")
def base(run: Path) -> Path:
    """The base model of `run`."""
    return run / "base"


@pytest.fixture(scope="session")
def merged(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run` merged onto the weights it was trained on."""
    from trainer.export.merge import merge

    return merge(run / "base", run / "adapter", tmp_path_factory.mktemp("merged") / "model", compute="float32")
