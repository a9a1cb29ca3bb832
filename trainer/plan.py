"""What a run will need before it starts: memory by part, time, and the settings that fit the card.

    shape = Shape.read(config_json)
    plan  = make_plan(config, shape, card, tokens=...)      # DoesNotFit with advice when nothing fits

Pure functions of the model's config.json, the settings and the card. Memory is in bytes, printed in GiB. The formulas
count what our own loop does: NF4 weights in blocks of 64 with doubly quantised scales, a bf16 embedding that is the
head as well, fp32 adapters and their gradients, what the level of recomputing keeps of each layer (`recompute`), and a
loss head that holds `loss_chunk` x vocabulary at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from .cards import GIB, Card
from .errors import DoesNotFit
from .settings import TrainConfig
from .shape import Shape

NF4_BYTES = 0.5 + (1 / 64) * (1 + 4 / 256)
"""Bytes a parameter: 4 bits, one 8-bit scale a block of 64, one fp32 scale of scales for each 256 blocks."""
HEAD_BYTES = 12
"""Bytes a logit in flight: bf16 product, fp32 copy, fp32 tanh of the soft-cap, bf16 gradient."""
RESERVE = 600_000_000
"""The CUDA context, cuBLAS workspaces and the allocator's slack."""
HEADROOM = 0.95
"""The share of the usable memory that a plan may fill."""
EFFICIENCY = 0.4
"""The share of a card's peak that the estimate of time assumes. An assumption: the run measures the real one."""
LAUNCH_SECONDS = 0.055
"""Time to launch a micro-step's kernels without compilation: the floor for small micro-batches."""
LINK = 12e9
"""Bytes a second between card and host, one way, for layer inputs that wait in the host's memory: PCIe 4 at half."""
LEVELS = ("off", "selective", "full", "offload")
"""What layers recompute in the backward pass, each level with less memory and more time than the one before."""


@dataclass(frozen=True)
class Work:
    """How much there is to do: tokens of all epochs, the supervised share, optimizer steps."""

    tokens: int
    supervised: float
    steps: int


@dataclass(frozen=True)
class Plan:
    """The choices for a run and what they cost. `parts` maps a name to bytes."""

    micro: int
    accumulation: int
    level: str
    """One of LEVELS."""
    resident: bool
    attention: str
    compile: bool
    loss_chunk: int
    parts: Mapping[str, int]
    flops_per_token: float
    card: Card | None
    seconds: float | None
    """Estimate for the whole run; None where the card's speed is not known."""
    host: int = 0
    """Bytes that wait in the host's memory, pinned."""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def memory(
    shape: Shape,
    config: TrainConfig,
    *,
    micro: int,
    level: str,
    resident: bool,
    attention: str,
    loss_chunk: int,
) -> dict[str, int]:
    """Bytes of each part of a run with these choices."""
    length, rank = config.data.max_length, config.lora.rank
    tokens = micro * length
    adapters = shape.adapters(rank)
    kept = tokens * (shape.layers * shape.kept(rank, level) + (shape.live if level != "off" else 0))
    if level == "offload":
        kept += 2 * (2 * tokens * shape.hidden)  # one input on its way out, one on its way in
    scores = 12 * micro * shape.heads * length**2 if attention == "eager" else 0
    return {
        "weights": int(shape.body * (2 if resident else NF4_BYTES) + 2 * shape.embedding * (1 if shape.tied else 2)),
        "adapters": 8 * adapters,
        "optimizer": int(adapters * (2.06 if config.optimizer.name == "adamw_8bit" else 8)),
        "activations": kept + scores * (shape.layers if level == "off" else 1),
        "loss head": min(loss_chunk, tokens) * shape.vocab * HEAD_BYTES + tokens * shape.hidden * 2,
        "reserve": RESERVE,
    }


def make_plan(config: TrainConfig, shape: Shape, card: Card | None, work: Work | None = None) -> Plan:
    """The fastest choice that fits `card` (None: a CPU run, where memory is not planned).

    Keeps micro x accumulation. Raises DoesNotFit, with what would fit, when nothing does.
    """
    plans = list(_plans(config, shape, card, work))
    if card is None:
        return plans[0]
    fitting = [p for p in plans if p.total <= card.usable * HEADROOM]
    if not fitting:
        raise DoesNotFit(_advice(config, shape, card, min(p.total for p in plans)))
    return min(fitting, key=lambda p: (_seconds_a_token(p, config, p.card), -p.micro))


def apply(config: TrainConfig, plan: Plan) -> TrainConfig:
    """The configuration with the plan's choices in place of `auto`."""
    memory_settings = config.memory.model_copy(
        update={
            "checkpointing": plan.level,
            "resident": "on" if plan.resident else "off",
            "attention": plan.attention,
            "compile": "on" if plan.compile else "off",
            "loss_chunk": plan.loss_chunk,
        }
    )
    batch = config.batch.model_copy(update={"micro": plan.micro, "accumulation": plan.accumulation})
    return config.model_copy(update={"memory": memory_settings, "batch": batch})


def _plans(config: TrainConfig, shape: Shape, card: Card | None, work: Work | None) -> Iterator[Plan]:
    asked = config.memory
    attention = asked.attention
    if attention == "auto":
        attention = "eager" if card is None or (shape.softcap and card.lacks) else _fused(shape)
    compiled = asked.compile == "on" or (asked.compile == "auto" and card is not None and not card.lacks)
    effective = config.batch.micro * config.batch.accumulation
    micros = [m for m in range(config.batch.micro, 0, -1) if effective % m == 0]
    for micro in micros:
        for level in LEVELS if asked.checkpointing == "auto" else (asked.checkpointing,):
            for resident in (False, True) if asked.resident == "auto" else (asked.resident == "on",):
                for chunk in (c for c in (asked.loss_chunk, 256, 64) if c <= asked.loss_chunk):
                    parts = memory(
                        shape,
                        config,
                        micro=micro,
                        level=level,
                        resident=resident,
                        attention=attention,
                        loss_chunk=chunk,
                    )
                    flops = shape.flops(
                        config.lora.rank,
                        config.data.max_length,
                        level=level,
                        supervised=work.supervised if work else 1.0,
                    )
                    plan = Plan(
                        micro,
                        effective // micro,
                        level,
                        resident,
                        attention,
                        compiled,
                        chunk,
                        parts,
                        flops,
                        card,
                        None,
                        _waiting(shape, micro * config.data.max_length) if level == "offload" else 0,
                    )
                    if work and card is not None and card.tflops:
                        plan = replace(plan, seconds=work.tokens * _seconds_a_token(plan, config, card))
                    yield plan


def _fused(shape: Shape) -> str:
    return "flex_attention" if shape.softcap else "sdpa"


def _waiting(shape: Shape, tokens: int) -> int:
    """Bytes of all layers' inputs, in bf16."""
    return 2 * shape.layers * tokens * shape.hidden


def _seconds_a_token(plan: Plan, config: TrainConfig, card: Card | None) -> float:
    """Orders plans, and estimates time where the card's peak is known."""
    peak = 1e12 * ((card.tflops if card else None) or 100)
    tokens = plan.micro * config.data.max_length
    launch = LAUNCH_SECONDS * (0.5 if plan.compile else 1.5 if plan.level == "selective" else 1)
    dequantise = 0.0 if plan.resident else 0.05 * plan.flops_per_token / (peak * EFFICIENCY)
    small_chunks = 1 + 0.02 * (plan.loss_chunk < 1024) + 0.05 * (plan.loss_chunk < 256)
    moved = 2 * plan.host / LINK  # out and in again
    return (plan.flops_per_token / (peak * EFFICIENCY) + dequantise) * small_chunks + (launch + moved) / tokens


def _advice(config: TrainConfig, shape: Shape, card: Card, needed: int) -> str:
    def smallest(length: int, rank: int) -> int:
        smaller = config.model_copy(
            update={
                "data": config.data.model_copy(update={"max_length": length}),
                "lora": config.lora.model_copy(update={"rank": rank}),
            }
        )
        return min(p.total for p in _plans(smaller, shape, card, None))

    tries: list[str] = []
    length, rank = config.data.max_length, config.lora.rank
    while length > 256:
        length //= 2
        total = smallest(length, rank)
        if total <= card.usable * HEADROOM:
            tries.append(f"--set data.max_length={length} ({total / GIB:.1f} GiB)")
            break
    if config.memory.attention == "eager":
        tries.append("--set memory.attention=auto")
    if config.memory.checkpointing not in ("auto", "offload"):
        tries.append("--set memory.checkpointing=auto")
    if config.memory.resident == "on":
        tries.append("--set memory.resident=auto")
    if not tries:
        tries.append("a smaller model such as --model gemma-2b or gemma-3-1b")
    taken = card.memory - card.free if card.free is not None else 0
    if taken > GIB:
        tries.append(
            f"freeing the {taken / GIB:.1f} GiB that other programs hold (--unload lets Ollama's models go, "
            "as does 'ollama stop NAME')"
        )
    return (
        f"Does not fit, needs {needed / GIB:.1f} GiB at least, {card.name} has {card.usable * HEADROOM / GIB:.1f} "
        f"GiB for it. Try {'; or '.join(tries)}."
    )
