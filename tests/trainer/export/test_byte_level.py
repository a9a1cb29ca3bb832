"""Llama 3 and Qwen: tokenizers that merge bytes, from data through training to a file that llama.cpp answers from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.export import byte_level
from tests.trainer.export.byte_level import FAMILIES
from trainer.data.dataset import prepare
from trainer.data.template import ChatTokenizer
from trainer.export import official, splitting
from trainer.export.errors import ExportError, UnsupportedExport
from trainer.export.job import Request, export
from trainer.export.quantise import Kind
from trainer.launch import Request as TrainRequest
from trainer.launch import dry_run, prepare_job
from trainer.settings import DataConfig

NAMES = {"llama3": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"}
OTHER = r"\p{L}+|\p{N}+|[^\p{L}\p{N}]+"
"""A way of splitting that nobody published."""
SETS = (
    "model.compute=float32",
    "batch.micro=4",
    "batch.accumulation=2",
    "data.max_length=128",
    "optimizer.lr=5e-3",
    "run.max_steps=4",
    "run.device=cpu",
    "eval.every=0",
)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_learned(family: str, tmp_path: Path) -> None:
    """Of our example chats exactly the answers and the token that ends each turn are learned, whatever the bytes."""
    byte_level.make_tokenizer(tmp_path, FAMILIES[family])
    tokenizer = ChatTokenizer.load(tmp_path)
    data = prepare(DataConfig(max_length=512, packing=False), tokenizer, 0)
    for row, example in zip(data.rows, data.examples, strict=True):
        learned = tokenizer.tokenizer.decode(row.ids[row.supervised].tolist(), skip_special_tokens=False)
        answers = [message.content.strip() for message in example.messages if message.role == "assistant"]
        assert learned == "".join(f"{answer}{FAMILIES[family].end_of_turn}" for answer in answers)


class TestSplitting:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_tokenizer_with_a_vocabulary_of_its_own_is_named(self, family: str, tmp_path: Path) -> None:
        """The pattern tells, not the vocabulary."""
        byte_level.make_tokenizer(tmp_path, FAMILIES[family])
        assert splitting.is_byte_pair(tmp_path)
        assert splitting.name(tmp_path) == NAMES[family]

    @pytest.mark.parametrize(
        "change",
        [
            lambda pre: pre["pretokenizers"][0]["pattern"].update(Regex=OTHER),
            lambda pre: pre["pretokenizers"][0].update(behavior="Removed"),
            lambda pre: pre["pretokenizers"][0].update(invert=True),
            lambda pre: pre["pretokenizers"].insert(0, {"type": "Digits", "individual_digits": True}),
            lambda pre: pre["pretokenizers"][-1].update(use_regex=True),
            lambda pre: pre["pretokenizers"][-1].update(add_prefix_space=True),
            lambda pre: pre["pretokenizers"].pop(0),
        ],
    )
    def test_anything_else_is_not(self, change: Any, tmp_path: Path) -> None:
        """Another pattern, another use of it, or one more step has no name, rather than a wrong one."""
        byte_level.make_tokenizer(tmp_path, FAMILIES["llama3"])
        path = tmp_path / "tokenizer.json"
        said = json.loads(path.read_text())
        change(said["pre_tokenizer"])
        path.write_text(json.dumps(said))
        assert splitting.name(tmp_path) is None

    def test_sentencepiece_needs_no_name(self, tmp_path: Path) -> None:
        """A folder with tokenizer.model is converted by that."""
        from trainer import tiny

        assert not splitting.is_byte_pair(tiny.make_tokenizer(tmp_path))


@pytest.mark.long  # saves a model
@pytest.mark.parametrize(("pattern", "note"), [(None, "without a Modelfile"), (OTHER, "if llama.cpp knows this very")])
def test_the_plan_says_what_an_export_needs(pattern: str | None, note: str, tmp_path: Path) -> None:
    """Before training, not after: which converter, and that a tokenizer may be unknown to it."""
    base = byte_level.make(tmp_path / "base", FAMILIES["llama3"], pattern=pattern)
    assert note in dry_run(TrainRequest(str(base), sets=SETS)).export


def converter() -> None:
    try:
        official.fetch()
    except ExportError as error:
        pytest.skip(f"the official converter cannot be had here: {error}")


@pytest.mark.slow  # downloads 76 MB once
@pytest.mark.parametrize("family", FAMILIES)
def test_from_data_to_answers(family: str, tmp_path: Path) -> None:
    """Trained, merged, converted: every prompt's tokens and every answer are those of the trained model."""
    converter()
    from trainer.loop import train

    run = tmp_path / "run"
    train(prepare_job(TrainRequest(str(byte_level.make(tmp_path / "base", FAMILIES[family])), sets=SETS), run))
    facts = json.loads(export(Request(run, kinds=(Kind.F16, Kind.Q8_0), converter="official", threads=1)).read_text())
    assert facts["verified"] is True
    for entry in facts["files"]:
        figures = entry["verification"]
        assert (figures["prompts"], figures["same_tokens"]) == (32, 32)
        assert figures["mean_divergence"] < 1e-4


@pytest.mark.slow  # the same
def test_an_unknown_way_of_splitting_is_refused_before_any_work(tmp_path: Path) -> None:
    """What llama.cpp would refuse after the merge is refused before it, by name."""
    converter()
    from trainer.loop import train

    run = tmp_path / "run"
    base = byte_level.make(tmp_path / "base", FAMILIES["llama3"], pattern=OTHER)
    train(prepare_job(TrainRequest(str(base), sets=(*SETS, "run.max_steps=1")), run))
    with pytest.raises(UnsupportedExport, match=re.escape(f"does not know how this tokenizer splits text, {base}")):
        export(Request(run, kinds=(Kind.F16,), converter="official", threads=1))
    assert not (run / "export").exists()
