"""Adding a trained adapter to the weights it was trained on.

    merge(base, adapter, out, onto=Onto.TRAINED, compute="bfloat16")

QLoRA trains beside weights that were rounded to NF4, so the adapter also corrects that rounding. Added to the
original weights it corrects what is not there; added to the rounded ones the result is the trained model
(KL divergence 1.2e-5 against 6.9e-4, measured once on a tiny model: docs/export.md). So each linear weight of the
decoder is quantised and dequantised again exactly as loading does, the update is added in fp32, and the sum is
stored as bf16. Tokenizer files are copied byte for byte.

One file of the base is in memory at a time.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ExportError, UnsupportedExport
from .weights import Weights

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]


class Onto(StrEnum):
    """Which weights the adapter is added to."""

    TRAINED = "trained"
    """The base's weights rounded to NF4 and back: those the adapter was trained on."""
    ORIGINAL = "original"
    """The base's weights as published."""


@dataclass(frozen=True)
class Update:
    """The low-rank change of one weight: a [r, in], b [out, r], both fp32; `magnitude` [out] where DoRA trained."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None

    def applied_to(self, weight: torch.Tensor) -> torch.Tensor:
        """The merged weight, fp32 [out, in]; `weight` is fp32 of the same shape."""
        merged = weight + self.scale * (self.b @ self.a)
        if self.magnitude is None:
            return merged
        return merged * (self.magnitude / merged.norm(dim=1))[:, None]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as PEFT writes it; `updates` is keyed by place, such as `layers.0.mlp.up_proj`."""

    rank: int
    scale: float
    updates: dict[str, Update]

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """Read `adapter_config.json` and `adapter_model.safetensors`. Raises ExportError or UnsupportedExport."""
        settings_file = folder / "adapter_config.json"
        if not settings_file.is_file():
            raise ExportError(
                f"No adapter, {folder}. Give a run that has trained to the end: 'agent-loop train-status'."
            )
        settings = json.loads(settings_file.read_text())
        for key in ("rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "layer_replication"):
            if settings.get(key):
                raise UnsupportedExport(f"The adapter uses {key}, {settings_file}; our merge does not know it.")
        if settings.get("peft_type", "LORA") != "LORA" or settings.get("bias", "none") != "none":
            raise UnsupportedExport(f"Not a plain LoRA adapter, {settings_file}. Only LoRA without biases is merged.")
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        parts: dict[str, dict[str, torch.Tensor]] = {}
        weights = Weights(folder)
        for name in weights:
            found = re.fullmatch(r".*?(layers\..+)\.lora_(A|B|magnitude_vector)(?:\.default)?(?:\.weight)?", name)
            if not found or "vision" in name or "audio" in name:
                raise UnsupportedExport(f"The adapter has a tensor '{name}', {folder}; our merge does not know it.")
            parts.setdefault(found[1], {})[found[2]] = weights.read(name).float()
        updates = {
            place: Update(part["A"], part["B"], scale, part.get("magnitude_vector")) for place, part in parts.items()
        }
        return cls(rank, scale, updates)

    @property
    def dora(self) -> bool:
        """Whether any update rescales its weight."""
        return any(update.magnitude is not None for update in self.updates.values())


def place(name: str) -> str | None:
    """Where a tensor of the base belongs: `layers.0.mlp.up_proj` of its `.weight`, None outside the text decoder."""
    found = re.search(r"(?<![a-z_])(layers\.\d+\..+)\.weight$", name)
    return None if found is None or "vision" in name or "audio" in name else found[1]


def merge(
    base: Path,
    adapter: Path | None,
    out: Path,
    *,
    onto: Onto = Onto.TRAINED,
    compute: str = "bfloat16",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Write the merged model folder `out` (replaced if there; whole or not at all) and return it.

    `adapter` None merges nothing: the folder is the base as training saw it. `compute` is the type the run
    dequantised to ("bfloat16" or "float32"), which is part of the weights it saw. Raises ExportError,
    UnsupportedExport.
    """
    weights = Weights(base)
    updates = Adapter.read(adapter).updates if adapter else {}
    unknown = set(updates) - {place(name) for name in weights}
    if unknown:
        raise ExportError(
            f"The adapter changes {min(unknown)}, which the base lacks, {base}. Give the base it was trained on."
        )
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _copy_texts(base, part)
    done, total = 0, sum(1 for _ in weights)
    for file in dict.fromkeys(weights.file(name) for name in weights):
        tensors: dict[str, torch.Tensor] = {}
        for name in (n for n in weights if weights.file(n) == file):
            tensors[name] = _merged(weights, name, updates, onto, compute, device)
            done += 1
            if progress:
                progress(done, total)
        _save(tensors, part / file.name)
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
    return out


def _merged(
    weights: Weights, name: str, updates: dict[str, Update], onto: Onto, compute: str, device: str
) -> torch.Tensor:
    import torch

    tensor = weights.read(name)
    where = place(name)
    if where is None or tensor.dim() != 2:
        return tensor.to(torch.bfloat16)
    values = _as_trained(tensor, compute, device) if onto is Onto.TRAINED else tensor.float()
    if where in updates:
        values = updates[where].applied_to(values)
    return values.to(torch.bfloat16)


def _as_trained(weight: torch.Tensor, compute: str, device: str) -> torch.Tensor:
    """Round to NF4 with double quantisation and back, as loading the base for training does. Returns fp32."""
    import bitsandbytes.functional as bnb
    import torch

    loaded = weight.to(device, getattr(torch, compute)).contiguous()
    packed, state = bnb.quantize_4bit(
        loaded, blocksize=64, compress_statistics=True, quant_type="nf4", quant_storage=torch.uint8
    )
    return bnb.dequantize_4bit(packed, state).float().cpu()


def _copy_texts(base: Path, out: Path) -> None:
    """Copy everything that is no weights: configuration, tokenizer files, chat template, licence."""
    for path in base.iterdir():
        if path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt", ".md"):
            shutil.copyfile(path, out / path.name)


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
