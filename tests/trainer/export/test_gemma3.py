"""Gemma 3's way to GGUF: other norms, two RoPE bases, five sliding layers to one full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import tiny
from trainer.data.template import ChatTokenizer
from trainer.export import gguf, probes
from trainer.export.llama import Llama
from trainer.export.quantise import Kind
from trainer.export.verify import BOUNDS, verify

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 3 with random weights, seven layers deep so that both kinds of layer are there."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    folder = tiny.make_tokenizer(tmp_path_factory.mktemp("gemma3") / "base")
    config = Gemma3TextConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=7,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=16,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def test_answers_as_transformers_does(folder: Path, tmp_path: Path) -> None:
    """An F16 file of a Gemma 3 passes the bounds of F16 against transformers in fp32, past its window of 16 tokens."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()

    @torch.no_grad()
    def reference(ids: Any) -> torch.Tensor:
        return torch.log_softmax(model(input_ids=torch.tensor([list(ids)])).logits[0], -1)

    path = gguf.write(folder, tmp_path / "gemma3.gguf", Kind.F16)
    with Llama(path, threads=1) as llama:
        found = verify(llama, reference, ChatTokenizer.load(folder), probes.chats([], 8), BOUNDS[Kind.F16])
    print(found)
    assert found.problems == []
    assert found.same_choice + found.ties == found.steps > 50
