"""Named models with settings that suit them. To add one, add a row; any other model goes by its id or folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A model by a short name: where it comes from and what differs from the defaults (dotted keys)."""

    name: str
    id: str
    about: str
    gated: bool = False
    """The hub asks for a token whose account accepted the model's licence."""
    values: Mapping[str, Any] = field(default_factory=dict)
    shape: Mapping[str, Any] = field(default_factory=dict)
    """The sizes in its config.json, so that a plan needs no network (a downloaded config.json wins)."""


TINY = "tiny"


def _sizes(vocab: int, hidden: int, layers: int, heads: tuple[int, int], feed_forward: int, cap: float | None) -> Any:
    return {
        "model_type": "gemma2" if cap else "gemma3_text",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": 256,
        "intermediate_size": feed_forward,
        "attn_logit_softcapping": cap,
        "tie_word_embeddings": True,
    }


PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset(
            TINY,
            TINY,
            "4 million parameters, made on the spot: every path on a CPU in a minute",
            values={
                "model.compute": "float32",  # bf16 is 14 times slower on a CPU without instructions for it
                "batch.micro": 8,
                "batch.accumulation": 1,
                "data.max_length": 256,
                "data.packing": False,
                "optimizer.lr": 2e-3,
                "run.epochs": 6,
                "eval.every": 10,
                "checkpoint.every": 10,
                "run.log_every": 1,
            },
        ),
        Preset(
            "gemma-2b",
            "google/gemma-2-2b-it",
            "Gemma 2, 2 billion parameters",
            True,
            {"batch.micro": 4},
            _sizes(256000, 2304, 26, (8, 4), 9216, 50.0),
        ),
        Preset(
            "gemma-9b",
            "google/gemma-2-9b-it",
            "Gemma 2, 9 billion parameters",
            True,
            {"batch.micro": 2},
            _sizes(256000, 3584, 42, (16, 8), 14336, 50.0),
        ),
        Preset(
            "gemma-3-1b",
            "google/gemma-3-1b-it",
            "Gemma 3, 1 billion parameters",
            True,
            {"batch.micro": 4},
            _sizes(262144, 1152, 26, (4, 1), 6912, None),
        ),
        Preset(
            "gemma-3-4b",
            "google/gemma-3-4b-it",
            "Gemma 3, 4 billion parameters",
            True,
            {"batch.micro": 2},
            _sizes(262208, 2560, 34, (8, 4), 10240, None),
        ),
    )
}


def find(model: str) -> Preset:
    """The preset of this name, or one without settings for an id of the hub or a folder."""
    return PRESETS.get(model) or Preset(model, model, "a model by id or folder")
