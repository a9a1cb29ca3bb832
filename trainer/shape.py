"""The sizes of a decoder and the operations that a token of training costs, from its config.json. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UnsupportedModel


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder-only transformer with gated feed-forward layers, as config.json names them."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    tied: bool = True
    softcap: bool = False
    """Attention logits are soft-capped, which fused attention must know how to do."""
    context: int = 8192

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Shape:
        """From a config.json; the text part of a multimodal one. Raises UnsupportedModel for other designs."""
        text = config.get("text_config") or config
        kind = config.get("model_type", "unknown")
        if text.get("num_local_experts") or text.get("num_experts"):
            raise UnsupportedModel(f"Unsupported model, mixture of experts '{kind}'. Use a dense model.")
        try:
            hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
            return cls(
                vocab=int(text["vocab_size"]),
                hidden=hidden,
                layers=int(text["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(text.get("num_key_value_heads") or heads),
                head_dim=int(text.get("head_dim") or hidden // heads),
                feed_forward=int(text["intermediate_size"]),
                tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", "gemma" in kind))),
                softcap=bool(text.get("attn_logit_softcapping")),
                context=int(text.get("max_position_embeddings") or 8192),
            )
        except (TypeError, ValueError) as error:
            raise UnsupportedModel(
                f"Unreadable sizes in config.json of '{kind}': {error}. Fetch the model again."
            ) from None
        except KeyError as error:
            raise UnsupportedModel(
                f"Unsupported model, '{kind}' has no {error} in config.json. Use a decoder such as Gemma or Llama."
            ) from None

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of each linear layer of one block: q, k, v, o, gate, up, down."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        h, ff = self.hidden, self.feed_forward
        return (h, query), (h, key), (h, key), (query, h), (h, ff), (h, ff), (ff, h)

    @property
    def body(self) -> int:
        """Parameters of all blocks' linear layers: what NF4 holds."""
        return self.layers * sum(i * o for i, o in self.linears)

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the head."""
        return self.vocab * self.hidden

    def adapters(self, rank: int) -> int:
        """LoRA parameters on all linear layers."""
        return self.layers * sum(rank * (i + o) for i, o in self.linears)

    def flops(self, rank: int, length: int, *, level: str, supervised: float = 1.0) -> float:
        """Operations a token of training on sequences of `length` with layers recomputed as `level` says.

        `supervised`: share of the tokens that meets the head. Weight gradients of the frozen base are left out:
        forward and input gradient are 2 operations a weight each, a second forward 2 more.
        """
        attention = 2 * length * self.heads * self.head_dim * self.layers  # causal forward, windows ignored
        adapters = self.adapters(rank)
        if level in ("full", "offload"):
            body, lora, attend = 6 * self.body, 8 * adapters, 4.5 * attention
        elif level == "selective":  # products are kept but for the adapters' second ones, half of their weights
            body, lora, attend = 4 * self.body, 7 * adapters, 3.5 * attention
        else:
            body, lora, attend = 4 * self.body, 6 * adapters, 3.5 * attention
        return body + lora + attend + 4 * self.embedding * supervised

    def kept(self, rank: int, level: str) -> int:
        """Bytes a token and layer that stay on the card until the layer's backward pass, in bf16.

        off: everything (`live`). selective: the layer's input, what its products give (q, k, v, o, gate, up, down and
        the adapters' narrow halves), and the attention's output with one fp32 figure a head. full: the input alone.
        offload: nothing, the input waits in the host's memory.
        """
        h, query = self.hidden, self.heads * self.head_dim
        if level == "off":
            return self.live
        if level == "selective":
            outputs = sum(out + rank for _, out in self.linears)
            return 2 * (h + outputs + query) + 4 * self.heads
        return 2 * h if level == "full" else 0

    @property
    def live(self) -> int:
        """Bytes a token of one layer in the middle of its backward pass, everything kept: bf16, norms in fp32."""
        h, query, key = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        return 2 * (4 * h + 2 * (query + 2 * key) + query + 4 * self.feed_forward) + 16 * h
