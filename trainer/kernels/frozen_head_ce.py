"""Cross entropy of a frozen output head without keeping logits.

A language model's head has 256 000 rows; its logits for 8 000 tokens take 21 GB with their gradient. The head is
frozen here, so the gradient to the hidden states is known as soon as the logits are: it is computed in the forward
pass, a chunk of tokens at a time, and only that (as large as the hidden states) is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _FrozenHeadCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, softcap: float, chunk: int) -> Tensor:
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=_wide(hidden), device=hidden.device)
        for start in range(0, hidden.shape[0], chunk):
            part = slice(start, start + chunk)
            logits = (hidden[part].to(head.dtype) @ head.t()).to(total.dtype)
            slope = None
            if softcap:
                slope = torch.tanh(logits / softcap)
                logits = slope * softcap
            norm = logits.logsumexp(-1, keepdim=True)
            target = targets[part, None]
            total += (norm - logits.gather(-1, target)).sum()
            if grad is None:
                continue
            # d loss / d logits = softmax - one hot; the soft-cap's derivative is 1 - tanh^2.
            logits.sub_(norm).exp_()
            logits.scatter_add_(-1, target, torch.full_like(norm, -1.0))
            if slope is not None:
                logits.mul_(slope.square_().neg_().add_(1))
            grad[part] = logits.to(head.dtype) @ head
        if grad is not None:
            ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[0].to(grad.dtype), None, None, None, None


def _wide(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def frozen_head_ce(hidden: Tensor, head: Tensor, targets: Tensor, *, softcap: float = 0.0, chunk: int = 1024) -> Tensor:
    """The sum over tokens of -log p(target), as a scalar in fp32 (fp64 for fp64 input).

    hidden [n, h]: last hidden states of the tokens that predict; head [vocab, h]: frozen; targets int64 [n];
    softcap: logits become cap * tanh(logits / cap), 0 for none; chunk: tokens whose logits exist at once.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return _FrozenHeadCE.apply(hidden, head, targets, softcap, chunk)  # type: ignore[no-any-return]
