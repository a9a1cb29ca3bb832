"""Types and bytes of the weights."""

from __future__ import annotations

from collections import Counter

import gguf
import numpy as np
import pytest

from trainer.export.errors import ExportError
from trainer.export.quantise import Kind, encode, type_of

T = gguf.GGMLQuantizationType


class TestTypes:
    def test_q4_k_m_of_26_layers(self) -> None:
        """Gemma 2 2B gets llama.cpp's mixture: Q6_K for the embedding and half of attn_v and ffn_down, else Q4_K."""
        names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
        found = Counter(
            (name, type_of(f"blk.{layer}.{name}.weight", (2304, 2304), Kind.Q4_K_M, 26).name)
            for layer in range(26)
            for name in names
        )
        # layers 0-2 and 22-25 of 26, and every third between: 5, 8, 11, 14, 17, 20
        assert found["attn_v", "Q6_K"] == found["ffn_down", "Q6_K"] == 13
        assert found["attn_v", "Q4_K"] == 13
        assert {kind for (name, kind), _ in found.items() if name not in ("attn_v", "ffn_down")} == {"Q4_K"}
        assert type_of("token_embd.weight", (256000, 2304), Kind.Q4_K_M, 26) is T.Q6_K

    @pytest.mark.parametrize(
        ("row", "narrow", "wide"), [(256, T.Q4_K, T.Q6_K), (96, T.Q5_0, T.Q8_0), (100, T.F16, T.F16)]
    )
    def test_rows_that_do_not_divide(self, row: int, narrow: T, wide: T) -> None:
        """A row that does not fill a type's blocks gets the next larger type, F16 in the end."""
        assert type_of("blk.1.ffn_up.weight", (8, row), Kind.Q4_K_M, 8) is narrow
        assert type_of("blk.0.ffn_down.weight", (8, row), Kind.Q4_K_M, 8) is wide

    @pytest.mark.parametrize("kind", list(Kind))
    def test_norms_stay_exact(self, kind: Kind) -> None:
        """One-dimensional weights are F32 in every file."""
        assert type_of("output_norm.weight", (2304,), kind, 26) is T.F32


class TestBytes:
    @pytest.mark.parametrize(
        ("kind", "error"), [(T.F16, 3e-4), (T.Q8_0, 6e-3), (T.Q6_K, 0.02), (T.Q4_K, 0.08), (T.Q5_0, 0.06)]
    )
    def test_what_comes_back(self, kind: T, error: float) -> None:
        """Decoded by the gguf package, the bytes are the weights within the type's usual error."""
        weights = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
        back = gguf.quants.dequantize(encode(weights, kind), kind)
        found = np.linalg.norm(back - weights) / np.linalg.norm(weights)
        assert 0 < found < error

    def test_k_quants_equal_recorded_ones(self) -> None:
        """Blocks made through `ggml_quantize_chunk` are those that llama.cpp's quantiser made of the same row."""
        row = ((np.arange(256) * 37 % 101 - 50) / 1024).astype(np.float32)[None]  # exact in binary
        assert encode(row, T.Q4_K).tobytes().hex() == Q4_K_ROW
        assert encode(row, T.Q6_K).tobytes().hex() == Q6_K_ROW

    def test_too_large_for_f16(self) -> None:
        """A weight that would become infinite is an error, with the way out."""
        with pytest.raises(ExportError, match="q8_0"):
            encode(np.full((1, 32), 1e6, np.float32), T.F16)


Q4_K_ROW = (
    "de062c12fefffffcfffdfefecfdcfffea0156bc1278cd3489e045ab0167bc2378de349ae056ab1267cd2389de459af15"
    "268ce248ad0459b0157bd1379ce348ae046ac0267bd2379df359be156ac1268c9df359be157ac1268ce248ad0459b015"
    "7bd1379ce348ae046ac0267bd2379df3156ac1268cd2489df459b0157bc1378ce348ae046ab0267bd2379de359ae156a"
)
Q6_K_ROW = (
    "d158bf37be25ad048b047bf37ad159d0c941ea63eb74fb741d951ea72fc841c9bf35ad169b048df26be069d147cf38bd"
    "1a922c840d85ed77ff57d038b04aa22b67df58c139b22aa22b931c85fd76ee57ce5ad137b31a902c830f86ec78ff55d1"
    "c841d962eb63fc840d951ea73fb840c9d129b30b931c74fe86de67ff47d129b118b1c66cb11b6c861b71c61cb1c76cb2"
    "2453f9248ef9138ef4538d2452f9248ed4a209d47e09a37e14a349d4ae09d77ec863be1463c9147ec923bec463bd1463"
    "807f897a867a84877f737d7a81877c89cf80"
)
