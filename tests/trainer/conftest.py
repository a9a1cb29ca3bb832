"""Models small enough that a step costs milliseconds, and one trained run, made once a session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 32,
}
"""Sizes of the smallest base: a quarter of tiny's width and half its layers."""


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Gemma-2 of 100 000 parameters with tiny's tokenizer."""
    import torch

    from trainer import tiny

    torch.set_num_threads(1)
    return tiny.make(tmp_path_factory.mktemp("base") / "small", **SMALL)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tiny's tokenizer, without torch."""
    from trainer import tiny
    from trainer.data.template import ChatTokenizer

    return ChatTokenizer.load(tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="session")
def prepare(small_base: Path) -> Any:
    """`prepare(run, "lora.rank=4", ...)`: a job on the smallest base and the example chats, 8 rows a step."""
    from trainer.launch import Job, Request, prepare_job

    common = (
        "model.compute=float32",
        "batch.micro=4",
        "batch.accumulation=2",
        "data.max_length=96",
        "data.packing=false",
        "optimizer.lr=5e-3",
        "run.max_steps=12",
        "run.log_every=1",
        "run.device=cpu",
        "eval.every=0",
        "checkpoint.every=4",
        "checkpoint.keep=9",
    )

    def make(run: Path, *sets: str, base: Path = small_base, force: bool = False) -> Job:
        return prepare_job(Request(str(base), sets=(*common, *sets)), run, force=force)

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, prepare: Any) -> Path:
    """A finished run of 12 steps: 8-bit AdamW, checkpoints each 4, one and a half epochs. Copy it to change it."""
    from trainer.loop import train

    run = tmp_path_factory.mktemp("runs") / "trained"
    train(prepare(run, "lora.rank=64", "eval.every=4", "run.metrics_port=0", "run.trackers=[tensorboard]"))
    return run


FOREIGN = (
    "ignore::FutureWarning:transformers.*",
    "ignore::FutureWarning:peft.*",
    "ignore::UserWarning:peft.*",
    "ignore::UserWarning:bitsandbytes.*",
    "ignore::FutureWarning:torch.*",
    "ignore::UserWarning:torch.*",
    "ignore::DeprecationWarning:torch.*",
    "ignore::DeprecationWarning:tensorboard.*",
    "ignore::DeprecationWarning:google.*",
)
"""Warnings that libraries give about each other; ours stay errors."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the libraries' warnings pass in this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for line in FOREIGN:
                item.add_marker(pytest.mark.filterwarnings(line))
