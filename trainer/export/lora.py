"""The adapter alone as GGUF, for `ADAPTER` in a Modelfile or llama.cpp's `--lora`.

    write(adapter, config, path)

It is added to whatever base it is loaded with, so it carries less of the training than a merged file (docs/export.md),
and Ollama's newer engine refuses adapters for gemma3: merged files are the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import architecture
from .errors import UnsupportedExport
from .merge import Adapter


def write(adapter: Adapter, config: Mapping[str, Any], path: Path) -> Path:
    """Write `adapter` for a model with this `config.json` to `path`, fp32; whole or not at all.

    Raises UnsupportedExport for DoRA, whose magnitudes GGUF has no place for.
    """
    import gguf

    if adapter.dora:
        raise UnsupportedExport("A DoRA adapter cannot be said as a LoRA GGUF. Leave out --adapter-only: merge it.")
    described = architecture.describe(config)
    family = {"gemma2": gguf.MODEL_ARCH.GEMMA2, "gemma3": gguf.MODEL_ARCH.GEMMA3}[described.name]
    names = gguf.get_tensor_name_map(family, described.blocks)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(part, described.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # llama.cpp scales by alpha/rank; with rank-stabilised LoRA the scale is alpha/sqrt(rank), so alpha is worked back.
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.scale * adapter.rank)
    for place, update in adapter.updates.items():
        name = names.get_name(f"model.{place}")
        if name is None:
            raise UnsupportedExport(f"No GGUF name for '{place}' of {described.name}.")
        writer.add_tensor(f"{name}.weight.lora_a", update.a.contiguous().numpy())
        writer.add_tensor(f"{name}.weight.lora_b", update.b.contiguous().numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
