"""Writing a Gemma as GGUF, with the `gguf` package: names, metadata, vocabulary, weights.

    write(model, path, kind)         a merged model folder -> one file
    digest(path)                     "sha256:…" of a file, as Ollama names blobs

The same folder gives the same bytes: no time and no host enters the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import architecture, quantise, vocabulary
from .errors import ExportError, UnsupportedExport
from .weights import Weights

if TYPE_CHECKING:
    import gguf

Progress = Callable[[int, int], None]
"""Called with tensors done and tensors in all."""


def write(
    model: Path, path: Path, kind: quantise.Kind, *, name: str | None = None, progress: Progress | None = None
) -> Path:
    """Write the model folder `model` (config.json, tokenizer files, *.safetensors) to `path` as `kind`.

    The file appears whole or not at all. Raises UnsupportedExport, TokenizerUnusable or ExportError.
    """
    config = read_config(model)
    described = architecture.describe(config)
    words = vocabulary.read(model, described.vocabulary)
    weights = Weights(model)
    plan = list(_plan(weights, described, kind))
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(part, described, words, weights, plan, kind, name or model.resolve().name, progress)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def digest(path: Path) -> str:
    """`sha256:` and the hexadecimal hash of the file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def read_config(model: Path) -> dict[str, Any]:
    """The model folder's `config.json`. Raises ExportError when there is none."""
    try:
        return json.loads((model / "config.json").read_text())
    except FileNotFoundError:
        raise ExportError(f"No config.json, {model}. Give the folder of a model.") from None


Entry = tuple[str, str, tuple[int, ...], "gguf.GGMLQuantizationType"]
"""Name in the folder, name in GGUF, shape, type."""


def _plan(weights: Weights, described: architecture.Architecture, kind: quantise.Kind) -> Iterator[Entry]:
    """Every tensor of the language model, the embedding first and then layer by layer."""
    import gguf

    family = {"gemma2": gguf.MODEL_ARCH.GEMMA2, "gemma3": gguf.MODEL_ARCH.GEMMA3}[described.name]
    names = gguf.get_tensor_name_map(family, described.blocks)
    for source in sorted(weights, key=_natural):
        text = source.replace("model.language_model.", "model.").replace("language_model.model.", "model.")
        if text.endswith("lm_head.weight") or "vision_tower" in text or "multi_modal_projector" in text:
            continue  # the head is the embedding; the export is the language model
        target = names.get_name(text, try_suffixes=(".weight",))
        if target is None:
            raise UnsupportedExport(f"No GGUF name for tensor '{source}' of {described.name}, {weights.folder}.")
        shape = weights.shape(source)
        yield source, target, shape, quantise.type_of(target, shape, kind, described.blocks)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which layer 2 comes before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _write(
    path: Path,
    described: architecture.Architecture,
    words: vocabulary.Vocabulary,
    weights: Weights,
    plan: list[Entry],
    kind: quantise.Kind,
    name: str,
    progress: Progress | None,
) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, described.name)
    writer.add_name(name)
    writer.add_file_type(kind.ftype)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in described.metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    _add_vocabulary(writer, words)
    for _, target, shape, tensor_type in plan:
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[tensor_type]
        size = int(np.prod(shape)) // per_block * block_bytes
        writer.add_tensor_info(target, shape, np.dtype(np.float32), size, raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (source, target, _, tensor_type) in enumerate(plan, start=1):
        values = weights.read(source).float().numpy()
        if target.endswith("norm.weight"):
            values = values + 1  # Gemma multiplies by 1 + w, llama.cpp by w
        writer.write_tensor_data(quantise.encode(values, tensor_type))
        if progress:
            progress(done, len(plan))
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, words: vocabulary.Vocabulary) -> None:
    writer.add_tokenizer_model("llama")  # sentencepiece with byte fallback
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text.encode() for text in words.texts])
    writer.add_token_scores(list(words.scores))
    writer.add_token_types([int(kind) for kind in words.types])
    for kind, index in words.special.items():
        writer.add_uint32(f"tokenizer.ggml.{kind}_token_id", index)
    writer.add_add_bos_token(words.add_bos)
    writer.add_add_eos_token(words.add_eos)
    writer.add_add_space_prefix(False)
    if words.chat_template:
        writer.add_chat_template(words.chat_template)
