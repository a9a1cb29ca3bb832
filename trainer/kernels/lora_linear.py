"""Adapters that add their product to the layer's in one operation.

PEFT's layers copy what the base gives, multiply the adapter's two factors, scale the result and add it: four tensors
as large as the layer's output. `addmm` reads the base's result and writes the sum: one, and three launches fewer on a
card. The gradient is autograd's own. Weights, names and files stay PEFT's.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

ADAPTER = "default"
"""PEFT's name for the only adapter of a model."""


def fuse(model: nn.Module) -> int:
    """Change the forward pass of all plain adapters on linear layers, quantised or not; return how many.

    Adapters that PEFT computes in another way (DoRA) and those on other kinds of layers stay as they are.
    """
    from peft.tuners.lora import LoraLayer

    count = 0
    for module in model.modules():
        if not isinstance(module, LoraLayer) or not isinstance(module.get_base_layer(), nn.Linear):
            continue
        if ADAPTER not in module.lora_A or ADAPTER in module.lora_variant or module.lora_bias[ADAPTER]:
            continue
        module.__class__ = _fused(type(module))
        count += 1
    return count


@functools.cache
def _fused(kind: Any) -> Any:
    """A subclass with our forward pass. A class, because torch would compile a function of each layer's anew."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return kind.forward(self, x) if self.disable_adapters or self.merged else _forward(self, x)

    return type(f"Fused{kind.__name__}", (kind,), {"forward": forward})


def _forward(layer: Any, x: Tensor) -> Tensor:
    """base(x) + scaling * dropout(x) A^T B^T for x [..., in]; the result [..., out] has the base's type."""
    base = layer.base_layer(x)
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    if not torch.is_autocast_enabled(x.device.type):
        x = x.to(down.dtype)
    narrow = nn.functional.linear(layer.lora_dropout[ADAPTER](x), down)
    wide = base.reshape(-1, base.shape[-1]).to(narrow.dtype)
    out = torch.addmm(wide, narrow.reshape(-1, narrow.shape[-1]), up.t(), alpha=layer.scaling[ADAPTER])
    return out.to(base.dtype).reshape(base.shape)
