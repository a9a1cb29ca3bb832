"""What every arm trains on: a random model at a real model's sizes, and drawn rows. Nothing comes from a network."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer import presets, tiny
from trainer.data.template import Encoded
from trainer.settings import TrainConfig
from trainer.shape import Shape

CHAT_MEAN, CHAT_CAP, CHAT_LEARNED = 220, 1024, 0.4
"""Chats: tokens of a row on average and at most, and the share that is learned."""


@dataclass(frozen=True)
class Sizes:
    """How a step's rows fall into micro-batches. All arms get the same rows in a step.

    `padded`: rows a micro-batch where rows lie side by side; `flat`: where they follow each other without padding.
    """

    rows: int
    padded: int
    flat: int


def sizes(options: argparse.Namespace, config: TrainConfig) -> Sizes:
    """Micro-batches of about micro x length tokens in every arm."""
    micro, step = config.batch.micro, config.batch.micro * config.batch.accumulation
    if options.workload == "packed":
        return Sizes(step, micro, micro)
    shorter = max(1, options.length // 256)
    return Sizes(step * shorter, micro * max(1, options.length // min(options.length, CHAT_CAP)), micro * shorter)


def rows(options: argparse.Namespace, vocabulary: int, count: int) -> list[Encoded]:
    """Drawn rows, equal for every arm."""
    draw = np.random.default_rng(0)
    out: list[Encoded] = []
    for _ in range(count):
        if options.workload == "packed":
            length, learned = options.length, 1.0
        else:
            cap = min(options.length, CHAT_CAP)
            length = int(min(cap, max(16, draw.lognormal(np.log(CHAT_MEAN) - 0.32, 0.8))))
            learned = CHAT_LEARNED
        ids = draw.integers(8, vocabulary, length).astype(np.int32)
        supervised = np.arange(length) >= max(1, round(length * (1 - learned)))
        out.append(Encoded(ids, supervised))
    return out


def read_shape(name: str, folder: Path) -> Shape:
    """Sizes from the folder where it is made, else from the preset."""
    config = folder / "config.json"
    if config.is_file():
        return Shape.read(json.loads(config.read_text()))
    return Shape.read(tiny.CONFIG if name == presets.TINY else presets.PRESETS[name].shape)


def make_base(name: str, work: Path) -> Path:
    """The model's folder, saved once: weights drawn at the shape's sizes, and a tokenizer that only loads."""
    folder = work / name
    if (folder / "done").exists():
        return folder
    if name == presets.TINY:
        tiny.make(folder)
    else:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        found = dict(presets.PRESETS[name].shape)
        if found["attn_logit_softcapping"] is None:
            del found["attn_logit_softcapping"]
        config: Any = AutoConfig.for_model(found.pop("model_type"), **found, initializer_range=0.02)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        stub_tokenizer().save_pretrained(folder)
    (folder / "done").touch()
    return folder


def stub_tokenizer() -> Any:
    """A tokenizer of two tokens: rows are ids already, but trainers ask for one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>")
