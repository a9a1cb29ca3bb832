"""The tensors of a model folder, one at a time: a nine-billion-parameter model never lies in memory whole.

Weights(folder)     names, shapes, and `read(name)` from `*.safetensors`
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ExportError

if TYPE_CHECKING:
    import torch


class Weights:
    """The safetensors files of `folder`; tensors come in file order. Raises ExportError when there are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            for name, entry in _header(path).items():
                self._file_of[name] = path
                self._shapes[name] = tuple(entry["shape"])
        if not self._file_of:
            raise ExportError(f"No *.safetensors, {folder}. Give the folder of a model in that format.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading it."""
        return self._shapes[name]

    def file(self, name: str) -> Path:
        """The file that holds the tensor."""
        return self._file_of[name]

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor in the type it was stored."""
        from safetensors import safe_open

        with safe_open(self._file_of[name], framework="pt") as file:
            return file.get_tensor(name)


def _header(path: Path) -> dict[str, Any]:
    """The table of a safetensors file: 8 bytes of length (little endian), then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            table: dict[str, Any] = json.loads(file.read(length))
        except (ValueError, OverflowError, MemoryError):
            raise ExportError(f"Not a safetensors file, {path}. Copy it again.") from None
    table.pop("__metadata__", None)
    return table
