"""What llama.cpp must know about a Gemma, read from `config.json`; pure.

    describe(config) -> Architecture

The keys are those that llama.cpp's loaders of `gemma2` and `gemma3` read. What such a loader takes for granted
(the soft-caps' presence, which layers slide, the scale of attention) is compared with the configuration, and a
model that differs is refused: the file would load and answer wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UnsupportedExport

Value = int | float | str


@dataclass(frozen=True)
class Architecture:
    """A model family as GGUF says it. `metadata` has full keys; int means uint32, float means float32."""

    name: str
    blocks: int
    vocabulary: int
    context: int
    metadata: Mapping[str, Value]


def describe(config: Mapping[str, Any]) -> Architecture:
    """Describe a Gemma-2 or Gemma-3 text model.

    A multimodal Gemma 3 is described by its `text_config`: the export is its language model. Raises
    UnsupportedExport for any other family and for values that llama.cpp would not honour.
    """
    text = {**config, **config["text_config"]} if "text_config" in config else dict(config)
    kind = str(text.get("model_type", "none")).removesuffix("_text")
    if kind not in ("gemma2", "gemma3"):
        raise UnsupportedExport(
            f"Our GGUF writer knows gemma2 and gemma3, not '{kind}' (model_type of config.json). "
            "Add --converter official, which downloads llama.cpp's own converter once."
        )
    heads = text["num_attention_heads"]
    head_dim = text.get("head_dim", 256)
    _refuse_other_scale(text, heads, head_dim)
    values: dict[str, Value] = {
        "context_length": text.get("max_position_embeddings", 131_072 if kind == "gemma3" else 8192),
        "embedding_length": text["hidden_size"],
        "block_count": text["num_hidden_layers"],
        "feed_forward_length": text["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": text.get("num_key_value_heads", heads),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(text.get("rms_norm_eps", 1e-6)),
    }
    values |= _gemma2(text) if kind == "gemma2" else _gemma3(text)
    return Architecture(
        name=kind,
        blocks=text["num_hidden_layers"],
        vocabulary=text["vocab_size"],
        context=int(values["context_length"]),
        metadata={f"{kind}.{key}": value for key, value in values.items()},
    )


def _gemma2(text: Mapping[str, Any]) -> dict[str, Value]:
    """Soft-caps, and a window on every other layer beginning with the first."""
    _refuse_other_windows(text, every=2)
    return {
        "attn_logit_softcapping": float(text["attn_logit_softcapping"]),
        "final_logit_softcapping": float(text["final_logit_softcapping"]),
        "attention.sliding_window": text["sliding_window"],
        "rope.freq_base": float(_rope(text, "full_attention").get("rope_theta", 10_000.0)),
    }


def _gemma3(text: Mapping[str, Any]) -> dict[str, Value]:
    """No soft-cap in attention, five sliding layers to one full, a RoPE base for each of the two kinds."""
    if text.get("attn_logit_softcapping") is not None:
        raise UnsupportedExport("llama.cpp's gemma3 has no attn_logit_softcapping, config.json sets it.")
    _refuse_other_windows(text, every=6)
    full, local = _rope(text, "full_attention"), _rope(text, "sliding_attention")
    values: dict[str, Value] = {
        "rope.freq_base": float(full.get("rope_theta", 1_000_000.0)),
        "attention.sliding_window": text["sliding_window"],
    }
    if local.get("rope_theta", 10_000.0) != 10_000.0:
        values["rope.freq_base_swa"] = float(local["rope_theta"])
    if text.get("final_logit_softcapping"):
        values["final_logit_softcapping"] = float(text["final_logit_softcapping"])
    if full.get("rope_type", "default") != "default":
        if full["rope_type"] != "linear":
            raise UnsupportedExport(f"RoPE scaling '{full['rope_type']}' of config.json is not gemma3's 'linear'.")
        values["rope.scaling.type"] = "linear"
        values["rope.scaling.factor"] = float(full["factor"])
    return values


def _rope(text: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The RoPE parameters of one kind of layer, from either way of writing them (transformers 4 and 5)."""
    parameters = text.get("rope_parameters") or {}
    if kind in parameters:
        return parameters[kind]
    if "rope_theta" in parameters:
        return parameters
    if kind == "sliding_attention":
        return {"rope_theta": text.get("rope_local_base_freq", 10_000.0)}
    scaling = text.get("rope_scaling") or {}
    found = {"rope_theta": text["rope_theta"]} if "rope_theta" in text else {}
    return {**found, **scaling}


def _refuse_other_windows(text: Mapping[str, Any], every: int) -> None:
    pattern = text.get("sliding_window_pattern") or text.get("_sliding_window_pattern") or every
    layers = text.get("layer_types")
    expected = [
        "full_attention" if (layer + 1) % every == 0 else "sliding_attention"
        for layer in range(text["num_hidden_layers"])
    ]
    if pattern != every or (layers is not None and list(layers) != expected):
        raise UnsupportedExport(
            f"llama.cpp gives full attention to every {every}th layer of this family; config.json says otherwise. "
            "Such a model cannot be exported."
        )


def _refuse_other_scale(text: Mapping[str, Any], heads: int, head_dim: int) -> None:
    """llama.cpp scales by the head's width, and by hidden/heads for the 27B models (46 and 62 layers)."""
    by_heads = text["num_hidden_layers"] in (46, 62)
    expected = text["hidden_size"] // heads if by_heads else head_dim
    found = text.get("query_pre_attn_scalar", expected)
    if not math.isclose(found, expected):
        raise UnsupportedExport(
            f"llama.cpp scales this model's attention by 1/sqrt({expected}); query_pre_attn_scalar of config.json "
            f"is {found}. Such a model cannot be exported."
        )
