"""Our own loop's step, without evaluation, guard and checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.clock import Clock
from benchmarks.training.workload import Sizes
from trainer import model, optimizer, step
from trainer.data import packing
from trainer.data.dataset import Dataset
from trainer.settings import TrainConfig


def run(
    folder: Path, config: TrainConfig, rows: list[Any], sizes: Sizes, clock: Clock, options: argparse.Namespace
) -> dict[str, Any]:
    """Steps over the rows in their order, each step's packed; returns what became of it."""
    trainable = model.prepare(config, folder, torch.device(options.device), 0)
    trainable.model.train()
    adamw = optimizer.make_optimizer(config, trainable)
    groups: list[list[tuple[int, ...]]] = []
    for start in range(0, len(rows), sizes.rows):
        packed = packing.pack([len(row) for row in rows[start : start + sizes.rows]], options.length)
        groups.append([tuple(start + i for i in group) for group in packed])
    dataset = Dataset(tuple(rows), (), (), (), 0, None, "")  # type: ignore[arg-type]
    losses: list[torch.Tensor] = []
    micro, retries = config.batch.micro, []
    for chosen in groups:
        clock.begin()
        loss, micro = step.accumulate(
            trainable,
            dataset,
            chosen,
            step.supervised_tokens(dataset, chosen),
            micro=micro,
            pad_id=0,
            chunk=config.memory.loss_chunk,
            multiple=step.width_multiple(config),
            on_retry=lambda micro, level: retries.append(f"{micro} {level}"),
        )
        torch.nn.utils.clip_grad_norm_(trainable.parameters, config.optimizer.clip)
        adamw.step()
        adamw.zero_grad()
        clock.end()
        losses.append(loss)
    return {
        "first_loss": losses[0].item(),
        "rest_loss": torch.stack(losses[1:]).mean().item(),
        "micro": micro,
        "recompute": trainable.layers.level,
        "retries": retries,
    }
