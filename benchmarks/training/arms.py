"""The arms by name: their settings, and one measured in this process.

ours-safe      NF4, layers recomputed, nothing compiled
ours-planned   what the plan chooses for this card
ours-liger     as planned, with Liger's RMSNorm, GeGLU and RoPE in place of compilation
trl            SFTTrainer on NF4 with its own loss head, layers recomputed, eager attention where the model caps it
trl-flat       the same, rows after each other without padding, flex attention on a card
trl-liger      `trl` with Liger's layers
unsloth        as it is installed
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from benchmarks.training import CannotRun, workload
from trainer import cards, config, plan
from trainer.cards import Card
from trainer.settings import TrainConfig
from trainer.shape import Shape


@dataclass(frozen=True)
class Arm:
    """`needs`: modules beyond the trainer's own. `loop`: the function in ours.py or peers.py."""

    loop: str
    needs: tuple[str, ...] = ()
    planned: bool = False
    padded: bool = False
    card: bool = False
    """Whether its kernels exist for cards alone."""


TRL = ("trl", "datasets")
ARMS = {
    "ours-safe": Arm("ours.run"),
    "ours-planned": Arm("ours.run", planned=True),
    "ours-liger": Arm("ours.run", ("liger_kernel",), planned=True, card=True),
    "trl": Arm("peers.trl", TRL, padded=True),
    "trl-flat": Arm("peers.trl_flat", TRL),
    "trl-liger": Arm("peers.trl_liger", (*TRL, "liger_kernel"), padded=True, card=True),
    "unsloth": Arm("peers.unsloth", ("unsloth", *TRL), padded=True, card=True),
}
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "trl", "liger-kernel", "unsloth", "flash-attn")


def settle(name: str, options: argparse.Namespace, shape: Shape, card: Card | None) -> TrainConfig:
    """The arm's settings on this card; None: on the CPU."""
    sets = [f"data.max_length={options.length}", f"run.device={options.device}"]
    settings = config.resolve(options.shape, sets=sets).config
    arm = ARMS[name]
    if arm.planned:
        settings = plan.apply(settings, plan.make_plan(settings, shape, card))
        changes = {"compile": "off"} if name == "ours-liger" else {}
    else:
        fused = "flex_attention" if shape.softcap else "sdpa"
        eager = card is None or (arm.padded and shape.softcap)
        changes = {
            "checkpointing": "full",
            "resident": "off",
            "compile": "off",
            "attention": "eager" if eager else fused,
        }
    return settings.model_copy(update={"memory": settings.memory.model_copy(update=changes)})


def describe(name: str, options: argparse.Namespace, card: Card | None) -> dict[str, Any]:
    """What the arm would run, without running it."""
    shape = workload.read_shape(options.shape, options.work / options.shape)
    settings = settle(name, options, shape, card)
    sizes = workload.sizes(options, settings)
    memory = settings.memory
    out: dict[str, Any] = {
        "arm": name,
        "shape": options.shape,
        "workload": options.workload,
        "device": card.name if card else "cpu",
        "rows_a_step": sizes.rows,
        "needs": list(ARMS[name].needs),
        "attention": memory.attention,
    }
    if name.startswith("ours"):
        choices = {
            "micro": settings.batch.micro,
            "level": memory.checkpointing,
            "resident": memory.resident == "on",
            "attention": memory.attention,
            "loss_chunk": memory.loss_chunk,
        }
        planned = sum(plan.memory(shape, settings, **choices).values()) - plan.RESERVE  # pyright: ignore[reportArgumentType]
        out |= {k: v for k, v in choices.items() if k != "level"} | {"recompute": choices["level"]}
        out |= {"compile": memory.compile == "on", "planned_bytes": planned}
    else:
        out["micro"] = sizes.padded if ARMS[name].padded else sizes.flat
    return out


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one arm in this process. Raises CannotRun, or what its library raises."""
    check(name, options)
    from benchmarks.training.clock import Clock

    folder = options.work / options.shape
    shape = workload.read_shape(options.shape, folder)
    card = cards.detect() if options.device == "cuda" else None
    settings = settle(name, options, shape, card)
    sizes = workload.sizes(options, settings)
    clock = Clock(options.device, options.warmup, options.steps)
    data = workload.rows(options, shape.vocab, clock.total * sizes.rows)
    found = _loop(name, options)(folder, settings, data, sizes, clock, options)
    seconds, used = clock.seconds(), clock.processor()
    tokens = [sum(len(row) for row in data[n * sizes.rows : (n + 1) * sizes.rows]) for n in range(len(seconds))]
    kept = slice(options.warmup, None)
    rate = sum(tokens[kept]) / sum(seconds[kept])
    useful = shape.flops(settings.lora.rank, options.length, level="off")
    peak, reserved = clock.peaks()
    median = statistics.median(seconds[kept])
    return {
        **describe(name, options, card),
        **found,
        "seconds_per_step": round(median, 4),
        "processor_seconds_per_step": round(statistics.median(used[kept]), 4),
        "warm_up_seconds": round(max(0.0, sum(seconds[: options.warmup]) - options.warmup * median), 2),
        "tokens_per_second": round(rate, 1),
        "teraflops": round(rate * useful / 1e12, 4),
        "mfu": round(rate * useful / (card.tflops * 1e12), 4) if card and card.tflops else None,
        "launches_per_step": clock.launches,
        "tensor_bytes": clock.tensors,
        "peak_bytes": peak,
        "reserved_bytes": reserved,
        "versions": _versions(),
    }


def check(name: str, options: argparse.Namespace) -> None:
    """Raises CannotRun where a library or the card is missing, before anything loads."""
    missing = [module for module in ARMS[name].needs if find_spec(module) is None]
    if missing:
        raise CannotRun(f"not installed: {', '.join(missing)}")
    if ARMS[name].card and options.device != "cuda":
        raise CannotRun("its kernels are for cards alone")


def _loop(name: str, options: argparse.Namespace) -> Callable[..., dict[str, Any]]:
    """The arm's function."""
    from benchmarks.training import ours, peers

    if name == "ours-liger":
        peers.liger(options)
    where, function = ARMS[name].loop.split(".")
    return getattr({"ours": ours, "peers": peers}[where], function)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
