"""Gemma 3's way to GGUF: other norms, two RoPE bases, five sliding layers to one full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainer import tiny
from trainer.data.template import ChatTokenizer
from trainer.export import gguf, probes
from trainer.export.job import Request, export
from trainer.export.llama import Llama
from trainer.export.quantise import Kind
from trainer.export.verify import BOUNDS, verify
from trainer.launch import Request as TrainRequest
from trainer.launch import prepare_job

pytestmark = pytest.mark.long


SIZES: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
"""Seven layers, so that both kinds are there; a window that prompts outgrow."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 3 with random weights, seven layers deep so that both kinds of layer are there."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    folder = tiny.make_tokenizer(tmp_path_factory.mktemp("gemma3") / "base")
    config = Gemma3TextConfig(**SIZES)
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


def test_one_that_also_sees_is_trained_and_exported_as_text(tmp_path: Path) -> None:
    """Gemma 3 from 4B up has a vision tower: no adapter goes there, and the export is that of its language model."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from trainer.loop import train

    base = tiny.make_tokenizer(tmp_path / "base")
    eyes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=SIZES,  # type: ignore[arg-type]
        vision_config={**eyes, "image_size": 28, "patch_size": 14},  # type: ignore[arg-type]
        mm_tokens_per_image=4,
        boi_token_index=1000,
        eoi_token_index=1001,
        image_token_index=1002,
    )
    torch.manual_seed(0)
    Gemma3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(base)
    sets = ("model.compute=float32", "data.max_length=64", "run.max_steps=2", "run.device=cpu", "eval.every=0")
    run = tmp_path / "run"
    train(prepare_job(TrainRequest(str(base), sets=(*sets, "optimizer.lr=5e-3")), run))
    names = list(load_file(run / "adapter" / "adapter_model.safetensors"))
    assert len(names) == 2 * 7 * SIZES["num_hidden_layers"]
    assert all(".language_model.layers." in name for name in names)
    facts = json.loads(export(Request(run, kinds=(Kind.F16,), threads=1)).read_text())
    assert facts["verified"] is True
