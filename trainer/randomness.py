"""All random states that training draws from: Python's, NumPy's, torch's and the cards'."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def state() -> dict[str, Any]:
    """This process's random states, in types that load without running code."""
    legacy: Any = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (str(legacy[0]), legacy[1].tolist(), int(legacy[2]), int(legacy[3]), float(legacy[4])),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(saved: Mapping[str, Any]) -> None:
    """Put the random states back; those of cards that are not here now are left aside."""
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = saved["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(saved["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda"][: torch.cuda.device_count()])
