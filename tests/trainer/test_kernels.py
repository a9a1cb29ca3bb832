"""The loss head against the textbook formula."""

from __future__ import annotations

import pytest
import torch

from trainer.kernels.frozen_head_ce import frozen_head_ce


def textbook(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, softcap: float) -> torch.Tensor:
    logits = hidden.double() @ head.double().t()
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")


@pytest.mark.parametrize("softcap", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_loss_and_gradient(softcap: float, chunk: int, dtype: torch.dtype, tolerance: float) -> None:
    """Value and gradient to the hidden states agree with fp64, for any chunk, with and without a soft-cap."""
    torch.manual_seed(0)
    hidden, head = torch.randn(20, 16).to(dtype), (torch.randn(50, 16) * 2).to(dtype)
    targets = torch.randint(0, 50, (20,))
    ours, reference = hidden.clone().requires_grad_(), hidden.clone().double().requires_grad_()
    loss = frozen_head_ce(ours, head, targets, softcap=softcap, chunk=chunk)
    expected = textbook(reference, head, targets, softcap)
    (loss * 0.25).backward()
    (expected * 0.25).backward()
    assert ours.grad is not None
    assert reference.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    assert (ours.grad.double() - reference.grad).norm() / reference.grad.norm() < tolerance


def test_no_gradient_is_computed_for_evaluation() -> None:
    """Without grad mode the value is the same and nothing is kept."""
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(6, 8), torch.randn(9, 8), torch.randint(0, 9, (6,))
    with torch.no_grad():
        loss = frozen_head_ce(hidden, head, targets, softcap=30.0)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(textbook(hidden, head, targets, 30.0).item(), rel=1e-5)


def test_no_tokens() -> None:
    """A micro-batch in which nothing is learned costs nothing and has a zero gradient."""
    hidden = torch.randn(0, 8, requires_grad=True)
    loss = frozen_head_ce(hidden, torch.randn(9, 8), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
