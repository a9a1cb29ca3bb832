"""Which GGUF type each weight gets, and the bytes of that type.

    type_of(name, shape, kind, blocks)    the type of one tensor in a file of this kind (pure)
    encode(weights, tensor_type)          float32 -> that type's bytes

F16, BF16 and Q8_0 are made by the `gguf` package. K-quants are made by llama.cpp itself: its function
`ggml_quantize_chunk` is called in the library that `xllamacpp` carries. That export is not documented, so
docs/export.md records its comparison with the same function built from source, and a test keeps two rows of it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError

from .errors import ExportError

if TYPE_CHECKING:
    import gguf
    import numpy as np

    Array = np.ndarray[Any, Any]


class Kind(StrEnum):
    """The files an export can make, by the names Ollama and llama.cpp give them."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"

    @property
    def ftype(self) -> int:
        """`general.file_type` of the file (llama.cpp's LLAMA_FTYPE_*)."""
        return {Kind.F16: 1, Kind.Q8_0: 7, Kind.Q4_K_M: 15}[self]

    @property
    def label(self) -> str:
        """How a file name says it: F16, Q8_0, Q4_K_M."""
        return self.value.upper()


def kinds(words: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds that a person names. Raises ConfigError for another word."""
    unknown = [word for word in words if word.lower() not in list(Kind)]
    if unknown:
        raise ConfigError(
            [f"Unknown kind of file, '{word}' (--gguf). Use one of {', '.join(Kind)}." for word in unknown]
        )
    return tuple(Kind(word.lower()) for word in words)


def type_of(name: str, shape: tuple[int, ...], kind: Kind, blocks: int) -> gguf.GGMLQuantizationType:
    """Return the type of tensor `name` (GGUF's name, torch's shape) in a file of `kind`.

    One-dimensional weights stay F32. Q4_K_M follows llama.cpp's recipe for models that share embedding and head:
    Q6_K for the embedding, and for `attn_v` and `ffn_down` in the first and last eighth of the layers and in every
    third between. Rows that do not divide into a type's blocks get the next larger type.
    """
    from gguf import GGMLQuantizationType as T

    if len(shape) < 2:
        return T.F32
    row = shape[-1]
    if kind is Kind.F16:
        return T.F16
    if kind is Kind.Q8_0:
        return T.Q8_0 if row % 32 == 0 else T.F16
    wide = name == "token_embd.weight" or (
        name.endswith((".attn_v.weight", ".ffn_down.weight")) and _keeps_more(int(name.split(".")[1]), blocks)
    )
    if row % 256 == 0:
        return T.Q6_K if wide else T.Q4_K
    if row % 32 == 0:
        return T.Q8_0 if wide else T.Q5_0
    return T.F16


def _keeps_more(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def encode(weights: Array, tensor_type: gguf.GGMLQuantizationType) -> Array:
    """Encode float32 `weights` (rows of values); F32 and F16 keep their shape, others become rows of bytes."""
    import numpy as np
    from gguf import GGMLQuantizationType as T
    from gguf import quants

    if tensor_type in (T.Q4_K, T.Q6_K):
        return _by_ggml(np.ascontiguousarray(weights, np.float32), tensor_type)
    if tensor_type is T.F16 and np.abs(weights).max(initial=0.0) > np.finfo(np.float16).max:
        raise ExportError("A weight is too large for F16. Export Q8_0 instead: --gguf q8_0.")
    return quants.quantize(np.ascontiguousarray(weights, np.float32), tensor_type)


def _by_ggml(weights: Array, tensor_type: gguf.GGMLQuantizationType) -> Array:
    import numpy as np
    from gguf import GGML_QUANT_SIZES

    per_block, block_bytes = GGML_QUANT_SIZES[tensor_type]
    rows, row = weights.shape
    out = np.empty((rows, row // per_block * block_bytes), np.uint8)
    written = _quantize_chunk()(
        int(tensor_type), weights.ctypes.data, out.ctypes.data, 0, rows, row, None
    )  # one call for the whole tensor, without an importance matrix
    if written != out.nbytes:
        raise ExportError(f"llama.cpp wrote {written} bytes of {tensor_type.name}, {out.nbytes} were expected.")
    return out


@functools.cache
def _quantize_chunk() -> Any:
    """`size_t ggml_quantize_chunk(type, src, dst, start, nrows, n_per_row, imatrix)` of llama.cpp."""
    import xllamacpp.xllamacpp as binary

    library = ctypes.CDLL(str(binary.__file__))
    try:
        function = library.ggml_quantize_chunk
    except AttributeError:
        raise ExportError(
            "This xllamacpp has no ggml_quantize_chunk, so it cannot make Q4_K_M. Export f16 and let Ollama do it: "
            "ollama create NAME -q q4_K_M."
        ) from None
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    return function
