"""Counts what torch holds and does, operation by operation, where no card counts it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

OFTEN = 3
"""Operations between two looks at the sum, which walks over all that is held."""


class Tensors(TorchDispatchMode):
    """Within it: `calls` by operator, `peak` bytes of results held at once, `alive()` those that still are.

    What was there before, such as weights, does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.peak = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls[func.name()] += 1
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        if self.calls.total() % OFTEN == 0:
            self.peak = max(self.peak, self.alive())
        return out

    def alive(self) -> int:
        """Bytes."""
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        return sum(size for _, size in self._held.values())
