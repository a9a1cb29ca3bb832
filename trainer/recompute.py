"""What a decoder's layers keep for their backward pass, and what they compute again there.

    layers = Layers(decoder.layers, "selective", rank=16, compiled=False)
    layers.stronger()       the next level, with less memory and more time; None at the last
    layers.set("full")      from now on

off         everything is kept
selective   the products of the base's weights and attention's result; all that is cheap is computed again
full        a layer's input
offload     nothing on the card: the input waits in the host's memory, pinned, and comes back for the backward pass

The gradients are the same bit by bit where an operation repeats its result, which all do on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from .plan import LEVELS

FACTOR = {"mm": 0, "linear": 0, "addmm": 1, "gemm_4bit": 0}
"""Products by their operator's name: which argument is the activation. bitsandbytes' own dequantises on the way."""
ATTENTION = ("scaled_dot_product", "flex_attention", "inductor_compiled_code")
"""Parts of the names of fused attention; the last is flex attention where transformers compiles it alone. Attention in
single steps would keep all scores, so it is computed again."""
VARIANTS = 32
"""Times that torch may compile a layer anew: two kinds, each for training, evaluation and samples, each for full and
for short batches. Past torch's own limit of 8 it runs uncompiled without a word."""


class Layers:
    """A decoder's layers at one level, which can be changed between steps."""

    def __init__(self, layers: Iterable[nn.Module], level: str, *, rank: int, compiled: bool) -> None:
        self._plain: list[tuple[Any, Callable[..., Any]]] = [(layer, layer.forward) for layer in layers]
        self._rank, self._compiled = rank, compiled
        if compiled:
            limits: Any = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
            limits.recompile_limit = max(limits.recompile_limit, VARIANTS)
        self.level = ""
        self.set(level)

    def stronger(self) -> str | None:
        """The next level."""
        rest = LEVELS[LEVELS.index(self.level) + 1 :]
        return rest[0] if rest else None

    def set(self, level: str) -> None:
        """Change the level. Steps that began under another one must be over."""
        if level == self.level:
            return
        self.level = level
        for layer, forward in self._plain:
            layer.forward = self._wrapped(forward)

    def _wrapped(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        # What is compiled must be a function of ours around `checkpoint`: torch runs that one uncompiled when it is
        # the function that is called, and everything in it.
        compiled = torch.compile if self._compiled else _same
        if self.level == "off":
            return compiled(forward)
        if self.level == "offload":  # a compiled function would not ask where to keep its tensors
            return functools.partial(_offloaded, compiled(forward))
        how: dict[str, Any] = {"use_reentrant": False}
        if self.level == "selective":
            rule = functools.partial(policy, self._rank)
            how["context_fn"] = functools.partial(create_selective_checkpoint_contexts, rule)

        def recomputed(*args: Any, **kwargs: Any) -> Any:
            return checkpoint(forward, *args, **how, **kwargs)

        return compiled(recomputed)


def _same(forward: Callable[..., Any]) -> Callable[..., Any]:
    return forward


def policy(rank: int, context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Keep a product over more than `rank` terms and what fused attention gives; compute the rest again.

    An adapter's second product is as large as the layer's own and sums over `rank` terms only: cheap to repeat.
    """
    name = operator.name().partition("::")[2].partition(".")[0] or operator.name()
    if any(part in name for part in ATTENTION) and "backward" not in name:
        return CheckpointPolicy.MUST_SAVE
    at = FACTOR.get(name)
    if at is not None and args[at].shape[-1] > rank:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _offloaded(forward: Callable[..., Any], hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Run a layer whose only kept tensor, its input, is moved to the host."""
    with save_on_cpu(pin_memory=hidden.is_cuda):
        return checkpoint(forward, hidden, *args, use_reentrant=False, **kwargs)
