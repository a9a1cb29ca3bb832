"""The processes that train one run together, one a card: who writes, and what all of them must agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn


class Processes:
    """This process among its `count`."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.rank, self.count = accelerator.process_index, accelerator.num_processes
        self.main: bool = accelerator.is_main_process
        """Whether this is the one that writes."""

    def add_up(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Sum gradients and loss over all: one message a step, however its sequences were split. Returns the loss."""
        if self.count == 1:
            return loss
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = self._sum(torch.cat([*(g.flatten() for g in parts), loss.reshape(1)]))
        for parameter, grad in zip(parameters, flat[:-1].split([p.numel() for p in parts]), strict=True):
            parameter.grad = grad.view_as(parameter)
        return flat[-1]

    def anyone(self, flag: bool) -> bool:
        """Whether the flag is set in any, so that all act alike."""
        if self.count == 1:
            return flag
        return bool(self._sum(torch.tensor(float(flag), device=self.device)).item())

    def gather(self, item: Any) -> list[Any]:
        """Everybody's item, by rank."""
        if self.count == 1:
            return [item]
        from accelerate.utils import gather_object

        return gather_object([item])

    def wait(self) -> None:
        """For all to come here."""
        self._accelerator.wait_for_everyone()

    def _sum(self, value: Tensor) -> Tensor:
        found = self._accelerator.reduce(value, "sum")
        assert isinstance(found, Tensor)
        return found
