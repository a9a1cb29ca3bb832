"""Families beyond Gemma: refused by our writer by name, and proved through llama.cpp's own converter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.export.byte_level import SIZES
from tests.trainer.export.conftest import RANK, write_adapter
from trainer import config, tiny
from trainer.export import official
from trainer.export.errors import ExportError, UnsupportedExport
from trainer.export.job import Request, export
from trainer.export.quantise import Kind

pytestmark = pytest.mark.long

FAMILIES = ("llama", "mistral")
"""Those with a sentencepiece tokenizer; test_byte_level.py has those that merge bytes."""


def write_run(folder: Path, family: str) -> Path:
    """A run of a tiny model of the family, with random weights and a random adapter, up to where an export begins."""
    import transformers

    names: dict[str, tuple[Any, Any]] = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    }
    sizes = {
        **SIZES,
        "vocab_size": tiny.VOCABULARY,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    base = tiny.make_tokenizer(folder / "base")
    (base / "config.json").unlink()
    settings, model = names[family]
    torch.manual_seed(0)
    model(settings(**sizes)).to(torch.bfloat16).save_pretrained(base)
    path = base / "tokenizer_config.json"
    words = {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | words))
    run = folder / "run"
    run.mkdir()
    config.resolve(str(base), options={"lora.rank": RANK, "lora.alpha": 16}).save(run / "config.json")
    write_adapter(run / "adapter", base)
    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_our_writer_refuses_it_before_any_work(family: str, tmp_path: Path) -> None:
    """The message names the family and the other converter; nothing was merged."""
    run = write_run(tmp_path, family)
    with pytest.raises(UnsupportedExport, match=rf"not '{family}'.*--converter official"):
        export(Request(run, kinds=(Kind.F16,)), print)
    assert not (run / "export").exists()


def test_a_kind_that_the_converter_cannot_make_is_refused_before_any_work(tmp_path: Path) -> None:
    """It has no quantiser for Q4_K_M; the message says how Ollama makes one."""
    run = write_run(tmp_path, "llama")
    with pytest.raises(UnsupportedExport, match=r"cannot make Q4_K_M.*ollama create"):
        export(Request(run, kinds=(Kind.Q8_0, Kind.Q4_K_M), converter="official"), print)
    assert not (run / "export").exists()


@pytest.mark.slow  # downloads 76 MB once
@pytest.mark.parametrize("family", FAMILIES)
def test_the_official_converter_passes_the_same_proof(family: str, tmp_path: Path) -> None:
    """Merged onto NF4, converted, and in llama.cpp equal to the trained model within the bounds that Gemma meets."""
    try:
        official.fetch()
    except ExportError as error:
        pytest.skip(f"the official converter cannot be had here: {error}")
    report = export(Request(write_run(tmp_path, family), kinds=(Kind.F16, Kind.Q8_0), converter="official", threads=1))
    facts = json.loads(report.read_text())
    assert facts["verified"] is True
    assert facts["modelfile"] is False, "TEMPLATE is written for Gemma's turns"
    for entry in facts["files"]:
        assert entry["verification"]["prompts"] == 32
        assert entry["verification"]["mean_divergence"] < 1e-4
