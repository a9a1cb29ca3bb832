"""What layers keep and compute again, counted operation by operation, against the plan's formulas."""

from __future__ import annotations

import functools
import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training.tensors import Tensors
from trainer import model, recompute, step
from trainer.model import Trainable
from trainer.plan import LEVELS
from trainer.shape import Shape

RANK = 4
SIZES = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 6, "head_dim": 16, "sliding_window": 32}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, prepare: Any) -> Any:
    """A base of six layers kept dequantised, so that every product is one that torch counts."""
    from trainer import tiny

    base = tiny.make(tmp_path_factory.mktemp("base") / "deep", **SIZES, query_pre_attn_scalar=16)
    run = tmp_path_factory.mktemp("run") / "run"
    return prepare(run, f"lora.rank={RANK}", "memory.resident=on", base=base)


@pytest.fixture(scope="module")
def trainable(job: Any) -> Trainable:
    found = model.prepare(job.config, job.base, torch.device("cpu"), job.tokenizer.size)
    found.model.train()
    return found


def batch_of(job: Any) -> step.Batch:
    return step.collate(job.dataset, job.dataset.train[:4], 0)


def gradient(trainable: Trainable, batch: step.Batch) -> torch.Tensor:
    for parameter in trainable.parameters:
        parameter.grad = None
    step.batch_loss(trainable, batch, 64).backward()
    return torch.cat([p.grad.flatten() for p in trainable.parameters if p.grad is not None])


class TestLevels:
    def test_memory_and_gradient(self, trainable: Trainable, job: Any) -> None:
        """Each level keeps what the plan's formula says beyond the last one, and no bit of the gradient changes."""
        shape, batch = Shape.read(json.loads((job.base / "config.json").read_text())), batch_of(job)
        places = batch.ids.numel() * shape.layers
        kept: dict[str, float] = {}
        gradients: dict[str, torch.Tensor] = {}
        for level in LEVELS:
            trainable.layers.set(level)
            with Tensors() as memory:
                loss = step.batch_loss(trainable, batch, 64)
                kept[level] = memory.alive() / places
            del loss
            gradients[level] = gradient(trainable, batch)
        assert gradients["off"].norm() > 0
        for level in LEVELS[1:]:
            assert torch.equal(gradients[level], gradients["off"]), level
        fused = 2 * shape.heads * shape.head_dim + 4 * shape.heads  # attention here is eager: its result is not kept
        selective = 2 * (shape.kept(RANK, "selective") - fused - shape.kept(RANK, "full"))  # fp32 here, bf16 there
        assert kept["selective"] - kept["full"] == pytest.approx(selective, rel=0.02)
        assert kept["off"] - kept["full"] == pytest.approx(2 * (shape.live - shape.kept(RANK, "full")), rel=0.1)

    def test_operations(self, trainable: Trainable, job: Any) -> None:
        """torch's own count of operations is the plan's, at every level."""
        shape, batch = Shape.read(json.loads((job.base / "config.json").read_text())), batch_of(job)
        tokens, share = batch.ids.numel(), len(batch.targets) / batch.ids.numel()
        found: dict[str, float] = {}
        for level in LEVELS:
            trainable.layers.set(level)
            with FlopCounterMode(display=False) as counter:
                gradient(trainable, batch)
            found[level] = counter.get_total_flops() / tokens
            expected = shape.flops(RANK, batch.ids.shape[1], level=level, supervised=share)
            assert found[level] == pytest.approx(expected, rel=0.08), level
        assert found["off"] < found["selective"] < 0.8 * found["full"]
        assert found["offload"] == found["full"]

    def test_offloading_moves_the_inputs_alone(
        self, trainable: Trainable, job: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One tensor a layer goes to the host: its input."""
        moved: list[torch.Size] = []

        class Counted(torch.autograd.graph.saved_tensors_hooks):
            def __init__(self, pin_memory: bool) -> None:
                def pack(tensor: torch.Tensor) -> torch.Tensor:
                    moved.append(tensor.shape)
                    return tensor

                super().__init__(pack, lambda tensor: tensor)

        monkeypatch.setattr(recompute, "save_on_cpu", Counted)
        trainable.layers.set("offload")
        batch = batch_of(job)
        gradient(trainable, batch)
        assert moved == [torch.Size([*batch.ids.shape, SIZES["hidden_size"]])] * SIZES["num_hidden_layers"]

    def test_the_order(self, trainable: Trainable) -> None:
        """Each level names the one with less memory; the last names none."""
        named: list[str | None] = []
        for level in LEVELS:
            trainable.layers.set(level)
            named.append(trainable.layers.stronger())
        assert named == ["selective", "full", "offload", None]


def test_selective_keeps_quantised_products_and_fused_attention() -> None:
    """bitsandbytes' product of an NF4 weight and torch's attention run once; what lies between runs twice."""
    from bitsandbytes.nn.modules import Linear4bit

    layer = Linear4bit(32, 32, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    layer.to("cpu")

    class Block(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            x = torch.tanh(layer(hidden))
            return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    block = Block()
    calls: dict[str, Counter[str]] = {}
    for level in ("selective", "full"):
        recompute.Layers([block], level, rank=4, compiled=False)
        with Tensors() as counted:
            block(torch.randn(1, 1, 8, 32, requires_grad=True)).sum().backward()
        calls[level] = counted.calls
        del block.forward
    attention = next(name for name in calls["full"] if "scaled_dot_product" in name and "backward" not in name)
    for name in ("bitsandbytes::gemm_4bit", attention):
        assert (calls["selective"][name], calls["full"][name]) == (1, 2), name
    assert calls["selective"]["aten::tanh"] == 2


@pytest.mark.long  # traces each layer's kind
@pytest.mark.parametrize("level", LEVELS)
def test_compiled_layers(job: Any, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """Compilation takes every level in, once for each kind of layer (sliding and full), whatever their number."""
    from torch._dynamo.testing import CompileCounterWithBackend

    graphs = CompileCounterWithBackend("aot_eager")  # as on a card but for the kernels, which need a compiler
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=graphs))
    torch._dynamo.reset()
    memory = job.config.memory.model_copy(update={"checkpointing": level, "compile": "on"})
    config = job.config.model_copy(update={"memory": memory})
    compiled = model.prepare(config, job.base, torch.device("cpu"), job.tokenizer.size)
    compiled.model.train()
    plain = model.prepare(job.config, job.base, torch.device("cpu"), job.tokenizer.size)
    plain.model.train()
    batch = batch_of(job)
    found, expected = gradient(compiled, batch), gradient(plain, batch)
    assert graphs.frame_count == 2
    assert ((found - expected).norm() / expected.norm()).item() < 1e-5
