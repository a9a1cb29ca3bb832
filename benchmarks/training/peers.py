"""The same steps by others: TRL's SFTTrainer in three settings, and Unsloth as it is installed."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.clock import Clock
from benchmarks.training.workload import Sizes, stub_tokenizer
from trainer.settings import TrainConfig


def trl(
    folder: Path, config: TrainConfig, rows: list[Any], sizes: Sizes, clock: Clock, options: argparse.Namespace
) -> dict[str, Any]:
    """SFTTrainer on our NF4 base and adapters, with its own loss head; rows side by side."""
    return _fit(_on_our_base(folder, config, options.device), config, rows, sizes.rows, sizes.padded, clock, options)


def trl_flat(
    folder: Path, config: TrainConfig, rows: list[Any], sizes: Sizes, clock: Clock, options: argparse.Namespace
) -> dict[str, Any]:
    """The same with rows after each other, told apart by their positions."""
    found = _on_our_base(folder, config, options.device)
    return _fit(found, config, rows, sizes.rows, sizes.flat, clock, options, padding_free=True)


def trl_liger(
    folder: Path, config: TrainConfig, rows: list[Any], sizes: Sizes, clock: Clock, options: argparse.Namespace
) -> dict[str, Any]:
    """`trl` with Liger's kernels in the layers."""
    liger(options)
    return trl(folder, config, rows, sizes, clock, options)


def liger(options: argparse.Namespace) -> None:
    """Put Liger's RMSNorm, GeGLU and RoPE into models that load from here on; loss heads stay the arm's own."""
    from liger_kernel.transformers import monkey_patch  # pyright: ignore[reportMissingImports]

    family = "gemma3_text" if options.shape.startswith("gemma-3") else "gemma2"
    getattr(monkey_patch, f"apply_liger_kernel_to_{family}")(fused_linear_cross_entropy=False)


def unsloth(
    folder: Path, config: TrainConfig, rows: list[Any], sizes: Sizes, clock: Clock, options: argparse.Namespace
) -> dict[str, Any]:
    """Unsloth's own loading, adapters and recomputing under the SFTTrainer that it patches."""
    from unsloth import FastLanguageModel  # pyright: ignore[reportMissingImports]  # before transformers, as it asks

    model, _ = FastLanguageModel.from_pretrained(
        str(folder), max_seq_length=options.length, dtype=None, load_in_4bit=True
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=0,
        bias="none",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth",
        random_state=config.run.seed,
    )
    return _fit(model, config, rows, sizes.rows, sizes.padded, clock, options, gradient_checkpointing=False)


def _on_our_base(folder: Path, config: TrainConfig, device: str) -> Any:
    from trainer import model

    return model.attach(model.load_base(config, folder, device), config)


def _fit(
    model: Any,
    config: TrainConfig,
    rows: list[Any],
    step: int,
    micro: int,
    clock: Clock,
    options: argparse.Namespace,
    *,
    padding_free: bool = False,
    gradient_checkpointing: bool = True,
) -> dict[str, Any]:
    """Train on the rows in their order, `step` of them a step in micro-batches of `micro`."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.end()

    table = Dataset.from_dict(
        {
            "input_ids": [row.ids.tolist() for row in rows],
            "labels": [np.where(row.supervised, row.ids, -100).tolist() for row in rows],
        }
    )
    with tempfile.TemporaryDirectory() as output:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=output,
                max_steps=clock.total,
                per_device_train_batch_size=micro,
                gradient_accumulation_steps=step // micro,
                learning_rate=config.optimizer.lr,
                lr_scheduler_type="constant",
                optim="adamw_8bit",
                max_grad_norm=config.optimizer.clip,
                max_length=None if padding_free else options.length,
                padding_free=padding_free,
                bf16=options.device == "cuda",
                use_cpu=options.device == "cpu",
                gradient_checkpointing=gradient_checkpointing,
                train_sampling_strategy="sequential",
                logging_first_step=True,
                logging_steps=clock.total,  # between, it would wait for the card
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=table,
            processing_class=stub_tokenizer(),
            callbacks=[Watch()],
        )
        trainer.train()
    first, rest = (entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return {
        "first_loss": first,
        "rest_loss": rest,
        "micro": micro,
        "recompute": "full" if gradient_checkpointing else "unsloth",
    }
