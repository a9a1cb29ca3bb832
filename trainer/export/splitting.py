"""How a byte-pair tokenizer splits text before it merges, by the name that llama.cpp gives to it.

    name(folder) -> "llama-bpe", "qwen2", or None

llama.cpp implements each way of splitting by hand and its converter recognises a tokenizer by a hash over its ids, so
one with another vocabulary (trained anew, or extended) is refused although it splits the same. The pattern itself is in
`tokenizer.json`; the verification after the export proves that the name was right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BEGIN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
NAMES = {
    _BEGIN + r"|\p{N}{1,3}" + _END: "llama-bpe",
    _BEGIN + r"|\p{N}" + _END: "qwen2",
}
"""Patterns as Llama 3 and Qwen 2 publish them (`pre_tokenizer` of their tokenizer.json), by llama.cpp's names."""


def is_byte_pair(folder: Path) -> bool:
    """Whether the converter will have to recognise the tokenizer: one without a sentencepiece file."""
    return not (folder / "tokenizer.model").is_file() and _read(folder).get("model", {}).get("type") == "BPE"


def name(folder: Path) -> str | None:
    """llama.cpp's name for the only pattern that the tokenizer in `folder` splits by; None if it is another."""
    patterns = list(_patterns(_read(folder).get("pre_tokenizer") or {}))
    return NAMES.get(patterns[0]) if len(patterns) == 1 else None


def _patterns(step: dict[str, Any]) -> Iterator[str]:
    """Each step's pattern; a step that splits without one (digits, ByteLevel's own) counts as unknown."""
    if step.get("type") == "Sequence":
        for part in step.get("pretokenizers", []):
            yield from _patterns(part)
    elif step.get("type") == "Split":
        whole = step.get("behavior") == "Isolated" and not step.get("invert")
        yield str(step.get("pattern", {}).get("Regex")) if whole else "other"
    elif step.get("type") != "ByteLevel" or step.get("use_regex", True) or step.get("add_prefix_space"):
        yield "other"


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    return json.loads(path.read_text()) if path.is_file() else {}
