"""One optimizer step: micro-batches whose gradients add up to the step's, whatever their size.

The loss of a micro-batch is a sum over its tokens divided by the tokens of the whole step, so splitting a step
differently gives the same gradient. That is what makes running out of memory harmless: drop the gradients, halve the
micro-batch (at one sequence: let layers recompute more), put the random states back, and do the same step again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import randomness
from .data.dataset import Dataset
from .errors import OutOfMemory
from .model import Trainable
from .settings import TrainConfig

BLOCK = 128
"""Tokens a block of flex attention."""
Group = tuple[int, ...]
"""Row indices that share a sequence."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch on the host: ids, positions int64 [b, s]; rows, targets int64 [n] (see Trainable.loss)."""

    ids: Tensor
    positions: Tensor
    rows: Tensor
    targets: Tensor


def collate(dataset: Dataset, groups: Sequence[Group], pad_id: int, multiple: int = 1) -> Batch:
    """Lay out sequences side by side, padded at the end to a multiple of `multiple` tokens.

    Padding is a row of its own that nothing looks at.
    """
    width = -(-_longest(dataset, groups) // multiple) * multiple
    ids = np.full((len(groups), width), pad_id, dtype=np.int64)
    positions = np.zeros((len(groups), width), dtype=np.int64)
    learned = np.zeros((len(groups), width), dtype=bool)
    for line, group in enumerate(groups):
        at = 0
        for index in group:
            row = dataset.rows[index]
            end = at + len(row)
            ids[line, at:end] = row.ids
            positions[line, at:end] = np.arange(len(row))
            learned[line, at:end] = row.supervised
            at = end
        positions[line, at:] = np.arange(width - at)
    targets = np.flatnonzero(learned)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(targets - 1),  # a row's first token is never learned, so its predecessor is of the same row
        torch.from_numpy(ids.reshape(-1)[targets]),
    )


def width_multiple(config: TrainConfig) -> int:
    """What sequences are padded to, so that compiled kernels meet few shapes: one where rows are packed anyway."""
    if config.memory.compile != "on" and config.memory.attention != "flex_attention":
        return 1
    return config.data.max_length if config.data.packing else BLOCK


def supervised_tokens(dataset: Dataset, groups: Sequence[Group]) -> int:
    """How many tokens of these sequences are learned."""
    return sum(int(dataset.rows[i].supervised.sum()) for group in groups for i in group)


def all_tokens(dataset: Dataset, groups: Sequence[Group]) -> int:
    """How many tokens these sequences have, without padding."""
    return sum(len(dataset.rows[i]) for group in groups for i in group)


def accumulate(
    trainable: Trainable,
    dataset: Dataset,
    groups: Sequence[Group],
    denominator: int,
    *,
    micro: int,
    pad_id: int,
    chunk: int,
    multiple: int = 1,
    on_retry: Callable[[int, str], None],
) -> tuple[Tensor, int]:
    """Add up the gradients of one step's sequences; return the mean loss (on the device) and the micro-batch used.

    `denominator`: learned tokens of the whole step, over all processes. After running out of memory the step is done
    again with half the micro-batch, at one sequence with the next level of `trainable.layers`; `on_retry` hears both.
    Raises OutOfMemory when one sequence does not fit at the last level.
    """
    before = randomness.state()
    while True:
        try:
            total = torch.zeros((), device=trainable.device)
            for start in range(0, len(groups), micro):
                batch = collate(dataset, groups[start : start + micro], pad_id, multiple)
                loss = batch_loss(trainable, batch, chunk) / denominator
                loss.backward()
                total += loss.detach()
            return total, micro
        except torch.OutOfMemoryError as error:
            level = trainable.layers.stronger()
            if micro == 1 and level is None:
                raise OutOfMemory(
                    "Out of memory with a micro-batch of one sequence and layers recomputed. Try "
                    f"--set data.max_length={max(8, _longest(dataset, groups) // 2)}, --set memory.loss_chunk=64, "
                    "or a smaller model."
                ) from error
        # Outside the handler: the traceback holds the failed micro-batch's tensors.
        for parameter in trainable.parameters:
            parameter.grad = None
        _free(trainable)
        randomness.restore(before)
        if micro > 1:
            micro //= 2
        elif level is not None:
            trainable.layers.set(level)
        on_retry(micro, trainable.layers.level)


def batch_loss(trainable: Trainable, batch: Batch, chunk: int) -> Tensor:
    """The summed loss of a micro-batch, on the device."""
    device = trainable.device
    return trainable.loss(
        batch.ids.to(device, non_blocking=True),
        batch.positions.to(device, non_blocking=True),
        batch.rows.to(device, non_blocking=True),
        batch.targets.to(device, non_blocking=True),
        chunk,
    )


@torch.no_grad()
def evaluate(
    trainable: Trainable, dataset: Dataset, *, micro: int, pad_id: int, chunk: int, multiple: int = 1
) -> float:
    """The mean loss of the held-out tokens. Leaves the model in training mode.

    Where memory runs out it goes on in smaller pieces; at one sequence torch's error is raised.
    """
    trainable.model.eval()
    total = torch.zeros((), device=trainable.device)
    start = 0
    while start < len(dataset.eval):
        batch = collate(dataset, dataset.eval[start : start + micro], pad_id, multiple)
        try:
            total += batch_loss(trainable, batch, chunk)
            start += micro
            continue
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
        _free(trainable)  # outside the handler: the traceback holds the failed batch's tensors
        micro //= 2
    trainable.model.train()
    return float(total) / max(1, supervised_tokens(dataset, dataset.eval))


def _free(trainable: Trainable) -> None:
    gc.collect()
    if trainable.device.type == "cuda":
        torch.cuda.empty_cache()


def _longest(dataset: Dataset, groups: Sequence[Group]) -> int:
    return max(all_tokens(dataset, [group]) for group in groups)
