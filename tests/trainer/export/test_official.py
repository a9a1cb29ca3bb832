"""Our writer beside llama.cpp's own converter: the same tensors, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.export.test_gemma3 import folder as gemma3  # noqa: F401 - a fixture
from trainer.export import gguf, official
from trainer.export.errors import ExportError
from trainer.export.quantise import Kind

pytestmark = pytest.mark.slow  # downloads 76 MB once

ALLOWED = {"general.name", "general.type", "general.size_label", "tokenizer.ggml.add_sep_token", "GGUF.kv_count"}
"""What the official converter says of a file and no loader needs."""
DEFAULTS: dict[str, Any] = {"gemma2.rope.freq_base": 10_000.0, "gemma3.rope.freq_base_swa": 10_000.0}
"""Keys that one of the two leaves out because this is what llama.cpp takes anyway."""


@pytest.fixture(scope="module", autouse=True)
def _converter() -> None:
    try:
        official.fetch()
    except ExportError as error:
        pytest.skip(f"the official converter cannot be had here: {error}")


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0])
@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_same_file(family: str, kind: Kind, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Names, types and bytes of all tensors are equal, and so is all metadata that a loader reads."""
    from gguf import GGUFReader

    model: Path = request.getfixturevalue({"gemma2": "merged", "gemma3": "gemma3"}[family])
    ours = GGUFReader(gguf.write(model, tmp_path / "ours.gguf", kind))
    theirs = GGUFReader(official.convert(model, tmp_path / "theirs.gguf", kind))
    mine, other = ({t.name: t for t in reader.tensors} for reader in (ours, theirs))
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert tensor.tensor_type == other[name].tensor_type, name
        assert np.array_equal(tensor.data, other[name].data), name
    said, wanted = ({k: f.contents() for k, f in r.fields.items() if k not in ALLOWED} for r in (ours, theirs))
    assert {**DEFAULTS, **said} == {**DEFAULTS, **wanted}
