"""Graphics cards by name: memory and matrix throughput from their makers' data sheets (dense bf16, no sparsity).

To add one, add a row. `detect()` reads the card that is here through NVML, without torch.
"""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True)
class Card:
    """`memory` and `free` in bytes; `tflops` dense bf16 with fp32 accumulation (None: not known)."""

    name: str
    memory: int
    tflops: float | None
    free: int | None = None
    """Bytes not in use now; None for a card that is only named."""
    lacks: str = ""
    """What this machine lacks for compiling kernels for it; empty: nothing, or a card that is only named."""

    @property
    def usable(self) -> int:
        """What a run may plan with: what is free now, or all but 3 percent of a named card."""
        return self.free if self.free is not None else int(self.memory * 0.97)


def _card(name: str, gib: float, tflops: float) -> Card:
    return Card(name, int(gib * GIB), tflops)


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        _card("rtx-3060", 12, 25.5),
        _card("rtx-3090", 24, 71),
        _card("rtx-4060-ti-16gb", 16, 44),
        _card("rtx-4070-ti-super", 16, 88),
        _card("rtx-4080", 16, 97.5),
        _card("rtx-4090", 24, 165),
        _card("rtx-5080", 16, 113),
        _card("rtx-5090", 32, 209),
        _card("a10", 24, 125),
        _card("a100-40gb", 40, 312),
        _card("a100", 80, 312),
        _card("a6000", 48, 155),
        _card("l4", 24, 121),
        _card("l40s", 48, 362),
        _card("h100", 80, 989),
        _card("h200", 141, 989),
        _card("b200", 180, 2250),
    )
}


def by_name(name: str) -> Card:
    """The card of this name, however it is spelt (`RTX 4090`, `rtx4090`); or `24gb` for any card of that size."""
    wanted = _plain(name)
    for card in CARDS.values():
        if _plain(card.name) == wanted:
            return card
    if size := re.fullmatch(r"(\d+(?:\.\d+)?)gi?b", wanted):
        return Card(f"{size[1]} GB", int(float(size[1]) * GIB), None)
    raise ConfigError([f"Unknown card '{name}'. Use one of {', '.join(CARDS)}, or a size such as 24gb."])


def detect() -> Card | None:
    """The first card of this machine, with what is free on it now; None without a card or its driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        name = name.decode() if isinstance(name, bytes) else str(name)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    return Card(name, int(memory.total), peak_tflops(name), int(memory.free), missing_tools())


def missing_tools() -> str:
    """What Triton needs to build its launchers and does not find: a C compiler, Python's headers."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")):
        return "a C compiler (package gcc)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's headers (package python3-dev)"
    return ""


def peak_tflops(device: str) -> float | None:
    """The throughput of a device by the name its driver gives (`NVIDIA GeForce RTX 4090`); None if unknown."""
    plain = _plain(device)
    hits = [card for card in CARDS.values() if _plain(card.name) in plain]
    return max(hits, key=lambda c: len(c.name)).tflops if hits else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
