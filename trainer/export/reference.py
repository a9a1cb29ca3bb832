"""The trained model as the export's yardstick: the weights that training saw, computed in fp32 where that fits.

reference, arithmetic = load(run, device)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .verify import Reference


def load(run: Path, device: str = "cpu") -> tuple[Reference, str]:
    """Load a run's base and adapter. Returns the reference and the arithmetic it uses, "float32" or "bfloat16".

    On a CPU always fp32: bf16 there is many times slower where the processor lacks instructions for it.
    """
    import torch

    from trainer.model import load_trained, make_resident

    model: Any = load_trained(run, device)
    parameters = sum(_values(p) for p in model.parameters())
    if device == "cpu" or parameters * 4 < 0.8 * torch.cuda.mem_get_info()[0]:
        make_resident(model)  # NF4 as plain weights, the same values
        model.float()
    arithmetic = "float32" if next(model.parameters()).dtype == torch.float32 else "bfloat16"

    @torch.no_grad()
    def logprobs(ids: Sequence[int]) -> torch.Tensor:
        batch = torch.tensor([list(ids)], device=device)
        return torch.log_softmax(model(input_ids=batch, use_cache=False).logits[0].float(), -1).cpu()

    return logprobs, arithmetic


def _values(parameter: Any) -> int:
    """How many weights a parameter holds; packed NF4 has two in a byte."""
    return parameter.numel() * (2 if "Params4bit" in type(parameter).__name__ else 1)
