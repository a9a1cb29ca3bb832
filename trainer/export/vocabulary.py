"""A sentencepiece tokenizer as GGUF says it: every token's text, score and type, and the special ids.

    read(folder, size) -> Vocabulary

Types decide whether `<start_of_turn>` in a prompt is one token or thirteen. They come from three files: the pieces
from `tokenizer.model`, and what was added to them from `added_tokens_decoder` in `tokenizer_config.json` and from
`added_tokens` in `tokenizer.json`. transformers 5 leaves out the second when it saves a tokenizer, so the third is
read too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from .errors import TokenizerUnusable


class Type(IntEnum):
    """Token types of the GGUF specification (`tokenizer.ggml.token_type`)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


ADDED_SCORE = -1000.0
"""Score of a token that is matched as a whole and never built by merging."""

SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unk": "unk_token", "pad": "pad_token"}
GGUF_NAME = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass(frozen=True)
class Vocabulary:
    """`size` tokens; `special` maps GGUF's names (bos, eos, unknown, padding) to ids."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[Type, ...]
    special: dict[str, int]
    add_bos: bool
    add_eos: bool
    chat_template: str | None


def read(folder: Path, size: int) -> Vocabulary:
    """Read the tokenizer in `folder` for a model of `size` embedding rows; rows without a piece become unused.

    Raises TokenizerUnusable when a file is missing, when there are more tokens than rows, or when the turn markers
    of the chat template are not whole tokens.
    """
    config = _json(folder / "tokenizer_config.json")
    texts, scores, types = _pieces(folder / "tokenizer.model", size)
    for index, text, special in _added(folder, config):
        if index >= size:
            raise TokenizerUnusable(
                f"Token '{text}' has id {index}, the model has {size} rows, {folder}. "
                "Take model and tokenizer from the same place."
            )
        control = special or _looks_special(text)
        texts[index] = text if control else text.replace("▁", " ")
        types[index] = Type.CONTROL if control else Type.USER_DEFINED
        scores[index] = ADDED_SCORE
    return Vocabulary(
        texts=tuple(texts),
        scores=tuple(scores),
        types=tuple(types),
        special=_special(config, texts),
        add_bos=config.get("add_bos_token", True),
        add_eos=config.get("add_eos_token", False),
        chat_template=_chat_template(folder, config),
    )


def _pieces(path: Path, size: int) -> tuple[list[str], list[float], list[Type]]:
    if not path.is_file():
        raise TokenizerUnusable(
            f"No tokenizer.model, {path.parent}. Take the tokenizer files from the base model's own folder: "
            "transformers 5 does not save this one."
        )
    from sentencepiece import SentencePieceProcessor

    model: Any = SentencePieceProcessor(model_file=str(path))
    count = model.get_piece_size()
    if count > size:
        raise TokenizerUnusable(
            f"The tokenizer has {count} pieces, the model {size} rows, {path}. "
            "Take model and tokenizer from the same place."
        )
    texts = [f"[PAD{index}]" for index in range(size)]
    scores = [-10_000.0] * size
    types = [Type.UNUSED] * size
    for index in range(count):
        texts[index] = model.id_to_piece(index)
        scores[index] = model.get_score(index)
        if model.is_unknown(index):
            types[index] = Type.UNKNOWN
        elif model.is_control(index):
            types[index] = Type.CONTROL
        elif model.is_unused(index):
            types[index] = Type.UNUSED
        elif model.is_byte(index):
            types[index] = Type.BYTE
        else:
            types[index] = Type.NORMAL
    return texts, scores, types


def _added(folder: Path, config: dict[str, Any]) -> list[tuple[int, str, bool]]:
    """Tokens that are matched whole: (id, text, special?), from both files that may list them."""
    found = {
        int(token["id"]): (token["content"], bool(token.get("special")))
        for token in _json(folder / "tokenizer.json", required=False).get("added_tokens", [])
    }
    for index, token in config.get("added_tokens_decoder", {}).items():
        found[int(index)] = (token["content"], bool(token.get("special")))
    return [(index, text, special) for index, (text, special) in sorted(found.items())]


def _looks_special(text: str) -> bool:
    """Gemma lists some tokens as ordinary that must never be typed by a person."""
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or (text.startswith("<unused") and text.endswith(">"))


def _special(config: dict[str, Any], texts: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind, key in SPECIAL.items():
        said = config.get(key)
        text = said.get("content") if isinstance(said, dict) else said
        if text in texts:
            found[GGUF_NAME[kind]] = texts.index(text)
    for kind in ("bos", "eos"):
        if kind not in found:
            raise TokenizerUnusable(
                f"tokenizer_config.json names no {kind}_token of the vocabulary. "
                "Take the tokenizer files from the base model's own folder."
            )
    return found


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template from `tokenizer_config.json` or the file beside it; the default one of several."""
    said = config.get("chat_template")
    if isinstance(said, list):
        said = next((t["template"] for t in said if t.get("name") == "default"), None)
    beside = folder / "chat_template.jinja"
    return said if said is not None else beside.read_text() if beside.is_file() else None


def _json(path: Path, required: bool = True) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise TokenizerUnusable(f"No {path.name}, {path.parent}. Take it from the base model's own folder.")
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise TokenizerUnusable(f"{path.name} is no JSON ({error}), {path.parent}.") from None
