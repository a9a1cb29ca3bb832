"""Flex attention on cards whose blocks have little shared memory, and heads that are wide.

A block may take 99 KiB on the 24 GB cards (RTX 3090 and 4090, A10, L4) and on the RTX 5090. For heads wider than 128,
as all of Gemma's are, torch 2.15 tries one size of tile alone in the backward pass there, which needs 112 KiB: the
first step would end with "No valid triton configs" (pytorch/pytorch#198224). The tiles here are those reported to fit
and to be fastest of those that do, at 256 on such a card; forward, those that torch itself takes on an RTX 5090.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WIDE = 128
"""Heads up to here fit with torch's own tiles."""
NEEDED = 114_688
"""Bytes of shared memory a block that torch's own tiles need for wider heads."""
TILES = {
    "fwd_BLOCK_M": 32,
    "fwd_BLOCK_N": 64,
    "fwd_num_stages": 2,
    "fwd_num_warps": 4,
    "bwd_BLOCK_M1": 32,
    "bwd_BLOCK_N1": 32,
    "bwd_BLOCK_M2": 32,
    "bwd_BLOCK_N2": 32,
    "bwd_num_stages": 2,
    "bwd_num_warps": 4,
}
"""Rows and columns of tiles, and how many loads are under way, as `kernel_options` of flex attention names them."""


def fit(config: Any, device: torch.device) -> bool:
    """Have flex attention in this process take tiles that fit the card; False: torch's own do.

    `config`: the text model's, as transformers reads it.
    """
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if device.type != "cuda" or head_dim <= WIDE:
        return False
    if torch.cuda.get_device_properties(device).shared_memory_per_block_optin >= NEEDED:
        return False
    from transformers import AttentionInterface

    AttentionInterface.register("flex_attention", _small)
    return True


def _small(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **settings: Any
) -> tuple[Tensor, Tensor | None]:
    from transformers.integrations.flex_attention import flex_attention_forward

    return flex_attention_forward(module, query, key, value, attention_mask, kernel_options=TILES, **settings)
