"""What llama.cpp is told about a model, and what is refused because it would not honour it."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.export import architecture
from trainer.export.errors import UnsupportedExport

GEMMA_2_2B: dict[str, Any] = {
    "model_type": "gemma2",
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "max_position_embeddings": 8192,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
}
GEMMA_3: dict[str, Any] = {
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_hidden_layers": 26,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000,
    "rope_local_base_freq": 10000,
}


class TestGemma2:
    def test_values(self) -> None:
        """Gemma 2 2B is described by the keys that llama.cpp's loader reads."""
        found = architecture.describe(GEMMA_2_2B)
        assert found.name == "gemma2"
        assert (found.blocks, found.vocabulary, found.context) == (26, 256000, 8192)
        assert found.metadata == {
            "gemma2.context_length": 8192,
            "gemma2.embedding_length": 2304,
            "gemma2.block_count": 26,
            "gemma2.feed_forward_length": 9216,
            "gemma2.attention.head_count": 8,
            "gemma2.attention.head_count_kv": 4,
            "gemma2.attention.key_length": 256,
            "gemma2.attention.value_length": 256,
            "gemma2.attention.layer_norm_rms_epsilon": 1e-6,
            "gemma2.attn_logit_softcapping": 50.0,
            "gemma2.final_logit_softcapping": 30.0,
            "gemma2.attention.sliding_window": 4096,
            "gemma2.rope.freq_base": 10000.0,
        }

    def test_theta_of_transformers_5(self) -> None:
        """RoPE's base is found where transformers 5 writes it."""
        newer = {k: v for k, v in GEMMA_2_2B.items() if k != "rope_theta"}
        newer["rope_parameters"] = {"rope_theta": 20000.0, "rope_type": "default"}
        assert architecture.describe(newer).metadata["gemma2.rope.freq_base"] == 20000.0


class TestGemma3:
    def test_both_spellings_agree(self) -> None:
        """A configuration says the same in the words of transformers 4 and of transformers 5."""
        newer = {k: v for k, v in GEMMA_3.items() if not k.startswith(("rope", "sliding_window_pattern"))}
        newer["rope_parameters"] = {
            "full_attention": {"rope_theta": 1000000, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10000, "rope_type": "default"},
        }
        newer["layer_types"] = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(26)]
        old, new = architecture.describe(GEMMA_3), architecture.describe(newer)
        assert old == new
        assert old.metadata["gemma3.rope.freq_base"] == 1e6
        assert "gemma3.final_logit_softcapping" not in old.metadata

    def test_text_part_of_a_multimodal_model(self) -> None:
        """The language model of a multimodal Gemma 3 is described, with its linear RoPE scaling."""
        scaled = {**GEMMA_3, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
        found = architecture.describe({"model_type": "gemma3", "text_config": scaled})
        assert found.metadata["gemma3.rope.scaling.type"] == "linear"
        assert found.metadata["gemma3.rope.scaling.factor"] == 8.0


class TestRefusals:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"model_type": "llama"}, "--converter official"),
            ({"query_pre_attn_scalar": 144}, "query_pre_attn_scalar"),
            ({"layer_types": ["full_attention"] * 26}, "every 2th layer"),
            ({"sliding_window_pattern": 3}, "every 2th layer"),
        ],
    )
    def test_what_llama_cpp_would_not_honour(self, changed: dict[str, Any], said: str) -> None:
        """A model that would load and answer wrongly is refused, and the message names the setting."""
        with pytest.raises(UnsupportedExport, match=said):
            architecture.describe({**GEMMA_2_2B, **changed})

    def test_other_rope_scaling(self) -> None:
        """Only linear scaling is Gemma 3's."""
        with pytest.raises(UnsupportedExport, match="yarn"):
            architecture.describe({**GEMMA_3, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}})

    def test_scale_of_27b(self) -> None:
        """The 27B models are scaled by hidden size over heads, as llama.cpp does for their number of layers."""
        config = {
            **GEMMA_2_2B,
            "num_hidden_layers": 46,
            "hidden_size": 4608,
            "num_attention_heads": 32,
            "head_dim": 128,
        }
        assert architecture.describe({**config, "query_pre_attn_scalar": 144}).blocks == 46
        with pytest.raises(UnsupportedExport):
            architecture.describe({**config, "query_pre_attn_scalar": 128})
