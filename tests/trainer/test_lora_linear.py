"""Our adapters' forward pass against PEFT's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.training.tensors import Tensors
from trainer.kernels.lora_linear import fuse


class Base(nn.Module):
    """Two linear layers, the first quantised or not."""

    def __init__(self, quantised: bool, dtype: torch.dtype) -> None:
        super().__init__()
        from bitsandbytes.nn.modules import Linear4bit

        self.first: nn.Module = nn.Linear(64, 96, bias=False)
        if quantised:
            self.first = Linear4bit(64, 96, bias=False, compute_dtype=dtype, quant_type="nf4").to("cpu")
            self.first.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        self.second = nn.Linear(96, 64)
        if not quantised:
            self.to(dtype)
        else:
            self.second.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(quantised: bool = True, dtype: torch.dtype = torch.float32, **settings: Any) -> tuple[Any, Any]:
    """The same model twice, PEFT's and ours, with adapters that do something."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["first", "second"], init_lora_weights=False, **settings)
    theirs = get_peft_model(Base(quantised, dtype), config)  # pyright: ignore[reportArgumentType]
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    ours = copy.deepcopy(theirs)
    return theirs, ours


def passed(model: Any, dtype: torch.dtype, autocast: bool) -> list[Tensor]:
    """The output, then all gradients, from the same draw of rows and dropout."""
    torch.manual_seed(1)
    x = torch.randn(2, 8, 64).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = model(x)
    out.float().square().sum().backward()
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert x.grad is not None
    return [out, x.grad, *grads]


@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    ("dtype", "autocast", "tolerance"),
    [(torch.float32, False, 1e-6), (torch.bfloat16, False, 2e-2), (torch.bfloat16, True, 2e-2)],
)
def test_same_as_peft(quantised: bool, dropout: float, dtype: torch.dtype, autocast: bool, tolerance: float) -> None:
    """Output, gradients and their types are PEFT's, in every precision the loop uses."""
    theirs, ours = adapted(quantised, dtype, lora_dropout=dropout)
    assert fuse(ours) == 2
    for expected, found in zip(passed(theirs, dtype, autocast), passed(ours, dtype, autocast), strict=True):
        assert found.dtype == expected.dtype
        assert (found - expected).norm() <= tolerance * expected.norm()
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_one_operation_adds_the_adapter() -> None:
    """Nothing as large as the layer's output is copied, scaled or added on the way, in mixed precision neither."""
    _, ours = adapted(quantised=True, dtype=torch.bfloat16)
    fuse(ours)
    x = torch.randn(2, 8, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16), Tensors() as counted:
        ours(x)
    assert counted.calls["aten::addmm"] == 3  # the second layer's own bias is one
    assert not {"aten::clone", "aten::mul.Tensor", "aten::add.Tensor"} & set(counted.calls)
    assert counted.calls["aten::_to_copy"] == 4  # the adapters' factors


def test_off_and_dora_are_left_to_peft() -> None:
    """Adapters that are switched off give the base's result; those of another kind are not touched."""
    theirs, ours = adapted()
    fuse(ours)
    x = torch.randn(3, 64)
    with ours.disable_adapter(), theirs.disable_adapter():
        off = ours(x)
        assert torch.equal(off, theirs(x))
    assert not torch.equal(ours(x), off)
    _, dora = adapted(quantised=False, use_dora=True)
    assert fuse(dora) == 0
