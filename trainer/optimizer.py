"""What moves the adapters: how many steps, at which rate, by which optimizer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .settings import TrainConfig

if TYPE_CHECKING:
    import torch

    from .model import Trainable


def total_steps(config: TrainConfig, sequences: int, processes: int = 1) -> int:
    """Optimizer steps of the whole run."""
    steps = config.run.epochs * math.ceil(sequences / (config.batch.micro * config.batch.accumulation * processes))
    return min(steps, config.run.max_steps or steps)


def learning_rate(config: TrainConfig, done: int, total: int) -> float:
    """The rate of the step after `done` steps: a linear rise, then the schedule down to zero."""
    settings = config.optimizer
    warmup = math.ceil(settings.warmup * total)
    if done < warmup:
        return settings.lr * (done + 1) / (warmup + 1)
    share = (done - warmup) / max(1, total - warmup)
    if settings.schedule == "linear":
        return settings.lr * (1 - share)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * share))
    return settings.lr


def make_optimizer(config: TrainConfig, trainable: Trainable) -> torch.optim.Optimizer:
    """AdamW over the adapters, with fp32 or 8-bit moments."""
    lr, decay = config.optimizer.lr, config.optimizer.weight_decay
    if config.optimizer.name == "adamw_8bit":
        from bitsandbytes.optim.adamw import AdamW8bit

        return AdamW8bit(trainable.parameters, lr=lr, weight_decay=decay)
    import torch

    return torch.optim.AdamW(trainable.parameters, lr=lr, weight_decay=decay)
