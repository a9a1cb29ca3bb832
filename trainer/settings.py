"""What can be set about a run, with defaults and bounds, by section."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .data import EXAMPLES


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(_Section):
    """Which base model, and in what precision it computes. Weights are always NF4, doubly quantised."""

    id: str = Field(min_length=1, description="preset, id on the hub, or folder")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    compute: Literal["bfloat16", "float32"] = "bfloat16"


class LoraConfig(_Section):
    """The adapters: fp32, on every linear layer unless `targets` names some."""

    rank: int = Field(default=16, ge=1, le=1024)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    rslora: bool = False
    dora: bool = False


class DataConfig(_Section):
    """Where the rows come from and how they become sequences of at most `max_length` tokens."""

    path: Path = EXAMPLES
    format: Literal["auto", "messages", "prompt-completion", "alpaca", "sharegpt", "text"] = "auto"
    max_length: int = Field(default=2048, ge=8)
    packing: bool = True
    eval_fraction: float = Field(default=0.05, ge=0, lt=1)


class BatchConfig(_Section):
    """Sequences an optimizer step: micro x accumulation (x processes). A plan may only split it anew."""

    micro: int = Field(default=4, ge=1)
    accumulation: int = Field(default=4, ge=1)


class OptimizerConfig(_Section):
    name: Literal["adamw_8bit", "adamw"] = "adamw_8bit"
    lr: float = Field(default=2e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of all steps")


class MemoryConfig(_Section):
    """What trades memory for time; `auto` lets the plan decide."""

    checkpointing: Literal["auto", "off", "selective", "full", "offload"] = Field(
        default="auto", description="what layers recompute: nothing, all but products, all; offload: inputs wait in RAM"
    )
    resident: Literal["auto", "on", "off"] = Field(default="auto", description="keep the base dequantised as well")
    attention: Literal["auto", "eager", "sdpa", "flex_attention"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    loss_chunk: int = Field(default=1024, ge=1, description="supervised tokens the loss head takes at once")

    @field_validator("checkpointing", "resident", "compile", mode="before")
    @classmethod
    def _yaml_switch(cls, value: Any) -> Any:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value  # YAML's on and off


class EvalConfig(_Section):
    every: int = Field(default=100, ge=0, description="steps; 0: never")
    patience: int = Field(default=0, ge=0, description="evaluations without progress before stopping; 0: never stop")
    min_delta: float = Field(default=0.0, ge=0)
    samples: int = Field(default=2, ge=0, description="held-out prompts answered at each evaluation")
    sample_tokens: int = Field(default=48, ge=1, description="tokens of such an answer at most")


class CheckpointConfig(_Section):
    every: int = Field(default=100, ge=1, description="steps")
    keep: int = Field(default=3, ge=1)
    backup: Path | None = Field(default=None, description="second folder that gets a copy on the clock")
    backup_minutes: float = Field(default=60.0, gt=0)


class GuardConfig(_Section):
    """A step is broken where its loss is not a number, or above `spike` times the recent mean (0: any)."""

    spike: float = Field(default=5.0, ge=0)
    window: int = Field(default=20, ge=2)
    rollbacks: int = Field(default=3, ge=0)


class RunConfig(_Section):
    epochs: int = Field(default=3, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = Field(default=10, ge=1)
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    metrics_port: int | None = Field(default=None, ge=0, le=65535, description="serve Prometheus metrics here")


class TrainConfig(_Section):
    """All of a run's settings; see the sections."""

    model: ModelConfig
    lora: LoraConfig = LoraConfig()
    data: DataConfig = DataConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    memory: MemoryConfig = MemoryConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _agree(self) -> TrainConfig:
        if self.lora.dora and self.lora.rslora:
            raise ValueError("lora.dora and lora.rslora exclude each other; set one of them to false")
        if self.eval.patience and not (self.eval.every and self.data.eval_fraction):
            raise ValueError("eval.patience needs eval.every and data.eval_fraction above 0")
        return self
