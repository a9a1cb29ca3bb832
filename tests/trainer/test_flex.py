"""Which tiles flex attention takes, by the card's shared memory. What they are worth shows on a card alone."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer import config, model, tiny
from trainer.kernels import flex


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Generator[list[Any]]:
    """The `kernel_options` of each call of flex attention, which gives zeros here: a CPU has no such kernel."""
    from transformers import AttentionInterface
    from transformers.integrations import flex_attention

    seen: list[Any] = []

    def recorded(query: torch.Tensor, *_: Any, kernel_options: Any, **__: Any) -> torch.Tensor:
        seen.append(kernel_options)
        return torch.zeros_like(query)

    monkeypatch.setattr(flex_attention, "compile_friendly_flex_attention", recorded)
    yield seen
    AttentionInterface.register("flex_attention", flex_attention.flex_attention_forward)


@pytest.mark.parametrize(
    ("shared", "head_dim", "changed"),
    [(101_376, 256, True), (166_912, 256, False), (232_448, 256, False), (101_376, 128, False)],
    ids=["24 GB card", "A100", "H100", "narrow heads"],
)
def test_tiles_by_card(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: int, head_dim: int, changed: bool
) -> None:
    """A model on a card of 99 KiB a block asks for small tiles in every layer; elsewhere torch chooses."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    base = tiny.make(tmp_path / "base", **sizes, head_dim=head_dim)
    settings = config.resolve(str(base), sets=["memory.attention=flex_attention", "model.compute=float32"]).config
    monkeypatch.setattr(flex.torch.cuda, "get_device_properties", lambda _: properties(shared))
    fit = flex.fit
    monkeypatch.setattr(flex, "fit", lambda found, _: fit(found, torch.device("cuda")))  # the weights stay on the CPU
    loaded: Any = model.load_base(settings, base)
    masks = {"full_attention": None, "sliding_attention": None}  # making real ones takes a compiler
    with torch.no_grad():
        loaded(input_ids=torch.arange(8)[None], attention_mask=masks)
    assert asked == [flex.TILES if changed else None] * 2


def properties(shared: int) -> SimpleNamespace:
    """What torch says of a card."""
    return SimpleNamespace(shared_memory_per_block_optin=shared)


def test_on_a_cpu_nothing_changes() -> None:
    """No card is asked for what it has where there is none."""
    assert not flex.fit(SimpleNamespace(head_dim=256), torch.device("cpu"))


def test_tiles_are_torch_s_to_take() -> None:
    """Each option is one that torch knows, tiles divide the mask's blocks of 128 and each other as its kernels ask."""
    from torch.nn.attention.flex_attention import FlexKernelOptions

    known = set(FlexKernelOptions.__annotations__)
    assert {name.partition("_")[2] for name in flex.TILES} <= known
    assert all(128 % size == 0 for name, size in flex.TILES.items() if "BLOCK" in name)
    assert flex.TILES["bwd_BLOCK_N1"] % flex.TILES["bwd_BLOCK_M1"] == 0
    assert flex.TILES["bwd_BLOCK_M2"] % flex.TILES["bwd_BLOCK_N2"] == 0
