"""Tokens and their types: what makes `<start_of_turn>` one token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer import tiny
from trainer.export import vocabulary
from trainer.export.errors import TokenizerUnusable
from trainer.export.vocabulary import Type


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer folder as on the hub."""
    return tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "base")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "base"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))


class TestReading:
    def test_types(self, original: Path) -> None:
        """Turn markers are control tokens, the line feed is user-defined, bytes are bytes, spare rows are unused."""
        found = vocabulary.read(original, 1100)
        kind = dict(zip(found.texts, found.types, strict=True))
        assert kind["<start_of_turn>"] is kind["<end_of_turn>"] is kind["<bos>"] is Type.CONTROL
        assert kind["\n"] is Type.USER_DEFINED
        assert kind["<0x41>"] is Type.BYTE
        assert found.types[1099] is Type.UNUSED
        assert len(found.texts) == len(found.scores) == len(found.types) == 1100
        assert found.special == {"bos": 2, "eos": 1, "unknown": 3, "padding": 0}
        assert (found.add_bos, found.add_eos) == (True, False)
        assert found.chat_template == tiny.CHAT_TEMPLATE

    def test_as_transformers_5_saves_it(self, folder: Path) -> None:
        """Without `added_tokens_decoder`, which transformers 5 leaves out, the types still come out right."""
        whole = vocabulary.read(folder, 1024)
        edit(folder / "tokenizer_config.json", lambda said: said.pop("added_tokens_decoder"))
        assert vocabulary.read(folder, 1024) == whole
        assert vocabulary.read(folder, 1024).types[4] is Type.CONTROL

    def test_template_beside_the_configuration(self, folder: Path) -> None:
        """The chat template is found in `chat_template.jinja`, where newer models have it."""
        edit(folder / "tokenizer_config.json", lambda said: said.pop("chat_template"))
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        assert vocabulary.read(folder, 1024).chat_template == "{{ messages }}"


class TestRefusals:
    @pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer_config.json"])
    def test_missing_file(self, folder: Path, name: str) -> None:
        """A missing file is named, and where to take it from."""
        (folder / name).unlink()
        with pytest.raises(TokenizerUnusable, match=f"{name}.*base model's own folder"):
            vocabulary.read(folder, 1024)

    def test_more_tokens_than_rows(self, folder: Path) -> None:
        """A tokenizer larger than the model is refused with both numbers."""
        with pytest.raises(TokenizerUnusable, match=r"1024 pieces.*512 rows"):
            vocabulary.read(folder, 512)

    def test_added_token_beyond_the_model(self, folder: Path) -> None:
        """A token that was added behind the model's last row is named."""
        more = {"id": 1024, "content": "<new>", "special": True}
        edit(folder / "tokenizer.json", lambda said: said["added_tokens"].append(more))
        with pytest.raises(TokenizerUnusable, match=r"<new>.*id 1024"):
            vocabulary.read(folder, 1024)

    def test_no_bos(self, folder: Path) -> None:
        """A tokenizer that does not say which token begins a text is refused."""
        edit(folder / "tokenizer_config.json", lambda said: said.update(bos_token="<nowhere>"))
        with pytest.raises(TokenizerUnusable, match="bos_token"):
            vocabulary.read(folder, 1024)

    def test_no_json(self, folder: Path) -> None:
        """A damaged file is named."""
        (folder / "tokenizer_config.json").write_text("{")
        with pytest.raises(TokenizerUnusable, match="is no JSON"):
            vocabulary.read(folder, 1024)
