"""The same batches through transformers' and TRL's trainers: oracles that share none of our loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.left_behind import losses
from trainer import config, model
from trainer.data.dataset import prepare as prepare_data
from trainer.data.template import ChatTokenizer
from trainer.settings import TrainConfig

pytestmark = [
    pytest.mark.slow,  # imports two more trainers and makes three runs
    pytest.mark.filterwarnings("ignore"),
]

STEPS = 20
SETS = (
    "lora.rank=8",
    "optimizer.name=adamw",
    "optimizer.lr=5e-3",
    "optimizer.schedule=constant",
    "optimizer.warmup=0",
    "batch.micro=8",
    "batch.accumulation=1",
    "data.eval_fraction=0",
    f"run.max_steps={STEPS}",
    "run.epochs=3",
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, prepare: Any) -> dict[int, float]:
    from trainer.loop import train

    run = tmp_path_factory.mktemp("parity") / "ours"
    train(prepare(run, *SETS))
    return losses(run)


def same_rows(base: Path) -> tuple[TrainConfig, Any]:
    """The settings, and our rows in the order our loop takes them."""
    pytest.importorskip("datasets", reason="the group `parity` is not installed")
    from datasets import Dataset

    sets = (*SETS, "model.compute=float32", "data.max_length=96", "data.packing=false")
    settings = config.resolve(str(base), sets=sets).config
    data = prepare_data(settings.data, ChatTokenizer.load(base), 0)
    rows = [data.rows[data.train[i][0]] for epoch in range(3) for i in data.order(epoch)]
    return settings, Dataset.from_dict(
        {
            "input_ids": [r.ids.tolist() for r in rows],
            "labels": [[int(t) if s else -100 for t, s in zip(r.ids, r.supervised, strict=True)] for r in rows],
        }
    )


COMMON: dict[str, Any] = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 8,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch",
    "weight_decay": 0.0,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "bf16": False,
    "use_cpu": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "train_sampling_strategy": "sequential",
    "report_to": [],
    "disable_tqdm": True,
    "seed": 0,
}


def curve(trainer: Any) -> dict[int, float]:
    trainer.train()
    return {e["step"]: e["loss"] for e in trainer.state.log_history if "loss" in e}


def test_transformers_trainer(ours: dict[int, float], small_base: Path, tmp_path: Path) -> None:
    """Twenty steps of transformers.Trainer have our losses within 1e-3."""
    from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerFast, Trainer, TrainingArguments

    settings, table = same_rows(small_base)
    trainer = Trainer(
        model=model.attach(model.load_base(settings, small_base), settings),
        args=TrainingArguments(output_dir=str(tmp_path), **COMMON),
        train_dataset=table,
        data_collator=DataCollatorForTokenClassification(PreTrainedTokenizerFast.from_pretrained(small_base)),
    )
    assert curve(trainer) == pytest.approx(ours, abs=1e-3)


def test_trl(ours: dict[int, float], small_base: Path, tmp_path: Path) -> None:
    """Twenty steps of SFTTrainer, its adapters put back as they were drawn, have our losses within 1e-3."""
    pytest.importorskip("trl", reason="the group `parity` is not installed")
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    settings, table = same_rows(small_base)
    peft: Any = model.attach(model.load_base(settings, small_base), settings)
    drawn = {name: p.detach().clone() for name, p in peft.named_parameters() if p.requires_grad}
    trainer = SFTTrainer(
        model=peft,
        args=SFTConfig(output_dir=str(tmp_path), max_length=96, gradient_checkpointing=False, **COMMON),
        train_dataset=table,
        processing_class=AutoTokenizer.from_pretrained(small_base),
    )
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            parameter.data = drawn[name]  # SFTTrainer rounds adapters on a quantised base to bf16
    assert curve(trainer) == pytest.approx(ours, abs=1e-3)
