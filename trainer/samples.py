"""What the model says while it learns: the same held-out prompts at each evaluation, answered greedily.

    samples = Samples(job, trainable)
    samples.take(step)          a line each in RUN/samples.jsonl; returns {title: text} for the trackers

Prompts are the first held-out rows of the file that leave room for an answer, up to their last assistant turn, so a
run asks the same questions to its end, and after a resume. Looking changes nothing: no random number is drawn, and
the forward pass is that of an evaluation, over one fixed shape so that compiled layers compile once.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .data.dataset import Dataset
from .data.template import ChatTokenizer, Encoded
from .model import Trainable

FILE = "samples.jsonl"
WIDTH = 64
"""Widths are multiples of this, so that runs on similar data share compiled kernels."""


@dataclass(frozen=True)
class Prompt:
    """A held-out row of the data file: what is asked, what the file answers, the token that ends an answer."""

    line: int
    asked: np.ndarray
    wanted: np.ndarray
    end: int


def prompts(dataset: Dataset, count: int, room: int) -> list[Prompt]:
    """The first `count` held-out rows whose question and `room` more tokens stay within the longest row's length."""
    longest = max((len(row) for row in dataset.rows), default=0)
    held_out = sorted(index for group in dataset.eval for index in group)
    found = [_split(dataset.examples[index].line, dataset.rows[index]) for index in held_out]
    return [prompt for prompt in found if len(prompt.asked) + room <= max(longest, 2 * room)][:count]


def _split(line: int, row: Encoded) -> Prompt:
    """At the last assistant turn; plain text in the middle."""
    learned = np.flatnonzero(row.supervised)
    gaps = np.flatnonzero(np.diff(learned) > 1)
    start, stop = int(learned[gaps[-1] + 1] if len(gaps) else learned[0]), int(learned[-1]) + 1
    if start < 2:
        start = max(1, stop // 2)
    return Prompt(line, row.ids[:start], row.ids[start:stop], int(row.ids[stop - 1]))


class Samples:
    """Asks, writes down, and hands on. `count` 0, or nothing held out: does nothing."""

    def __init__(self, run: Path, dataset: Dataset, tokenizer: ChatTokenizer, count: int, tokens: int) -> None:
        self._path = run / FILE
        self._tokenizer, self._tokens = tokenizer, tokens
        self._prompts = prompts(dataset, count, tokens)

    def take(self, trainable: Trainable, step: int) -> dict[str, str]:
        """Answer each prompt; returns a title and a text in Markdown for each."""
        answers = answer(trainable, self._prompts, self._tokens, self._tokenizer.pad_id) if self._prompts else []
        told: dict[str, str] = {}
        lines: list[str] = []
        for prompt, ids in zip(self._prompts, answers, strict=True):
            said = {
                "step": step,
                "time": round(time.time(), 3),
                "line": prompt.line,
                "asked": self._text(prompt.asked),
                "answered": self._text(ids),
                "wanted": self._text(prompt.wanted),
            }
            lines.append(json.dumps(said, ensure_ascii=False) + "\n")
            told[f"line {prompt.line}"] = "\n\n".join(f"**{k}** {said[k]}" for k in ("asked", "answered", "wanted"))
        kept = self._before(step)
        if lines:
            part = self._path.with_suffix(".tmp")
            part.write_text(kept + "".join(lines))
            part.replace(self._path)
        return told

    def _before(self, step: int) -> str:
        """What earlier steps said; a resumed run says the later ones again."""
        if not self._path.is_file():
            return ""
        lines = self._path.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if json.loads(line)["step"] < step)

    def _text(self, ids: np.ndarray) -> str:
        return self._tokenizer.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()


@torch.no_grad()
def answer(trainable: Trainable, asked: list[Prompt], tokens: int, pad_id: int) -> list[np.ndarray]:
    """The most likely next token, up to `tokens` times or to the prompt's end token. Leaves the model in training mode.

    No cache of keys: the whole sequence is computed for each token, by the very forward pass that evaluates.
    """
    width = -(-(max(len(p.asked) for p in asked) + tokens) // WIDTH) * WIDTH
    ids = torch.full((len(asked), width), pad_id, dtype=torch.int64)
    for row, prompt in enumerate(asked):
        ids[row, : len(prompt.asked)] = torch.from_numpy(prompt.asked.astype(np.int64))
    lengths = [len(prompt.asked) for prompt in asked]
    going = set(range(len(asked)))
    ids = ids.to(trainable.device)
    positions = torch.arange(width, device=trainable.device).expand(len(asked), width)
    trainable.model.eval()
    for _ in range(tokens):
        with trainable.autocast():
            hidden = trainable.decoder(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        for row in sorted(going):
            last = hidden[row, lengths[row] - 1].to(trainable.head.dtype)
            token = int((trainable.head @ last).argmax())  # the soft-cap keeps the order
            ids[row, lengths[row]] = token
            lengths[row] += 1
            if token == asked[row].end:
                going.remove(row)
        if not going:
            break
    trainable.model.train()
    kept = ids.cpu().numpy()
    return [kept[row, len(prompt.asked) : lengths[row]] for row, prompt in enumerate(asked)]
