"""What a run says while it learns: the same held-out prompts, answered greedily, without touching what is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer import metrics, model, samples
from trainer.loop import train

pytestmark = pytest.mark.long

EVALUATED = ("eval.every=4", "data.eval_fraction=0.1", "run.max_steps=8", "eval.sample_tokens=12")


def said(run: Path) -> list[dict[str, Any]]:
    """The lines of samples.jsonl."""
    return [json.loads(line) for line in (run / samples.FILE).read_text().splitlines()]


def losses(run: Path) -> list[tuple[float, float]]:
    """Step and loss of every record."""
    return [(r["step"], r["loss"]) for r in metrics.read(run / "metrics.jsonl") if "loss" in r]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, prepare: Any) -> Path:
    """Eight steps, two evaluations, two prompts at each."""
    run = tmp_path_factory.mktemp("runs") / "looked"
    train(prepare(run, *EVALUATED, "run.trackers=[tensorboard]"))
    return run


def test_each_evaluation_asks_the_same(run: Path) -> None:
    """A line for each prompt at each evaluation: what was asked, what was answered, what the file says."""
    lines = said(run)
    assert [line["step"] for line in lines] == [4, 4, 8, 8]
    first, second = lines[:2], lines[2:]
    assert [line["line"] for line in first] == [line["line"] for line in second]
    assert first[0]["asked"].startswith("user\n")
    assert first[0]["wanted"]
    from trainer.data import EXAMPLES

    row = json.loads(EXAMPLES.read_text().splitlines()[first[0]["line"] - 1])
    assert first[0]["wanted"] == row["messages"][-1]["content"]


def test_looking_changes_nothing(run: Path, tmp_path: Path, prepare: Any) -> None:
    """Every loss is the same, to the bit, as that of a run that says nothing."""
    silent = tmp_path / "silent"
    train(prepare(silent, *EVALUATED, "eval.samples=0"))
    assert losses(silent) == losses(run)
    assert not (silent / samples.FILE).exists()


def test_answers_are_transformers_greedy_ones(tmp_path: Path, prepare: Any) -> None:
    """Two prompts of different length side by side are continued as transformers continues each alone."""
    job = prepare(tmp_path / "run", "data.eval_fraction=0.1")
    trainable = model.prepare(job.config, job.base, torch.device("cpu"), job.tokenizer.size)
    with torch.no_grad():  # fresh adapters do nothing: B is zero
        for parameter in trainable.parameters:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    asked = samples.prompts(job.dataset, 3, 12)
    assert len({len(prompt.asked) for prompt in asked}) > 1
    ours = samples.answer(trainable, asked, 12, job.tokenizer.pad_id)
    assert trainable.model.training
    trainable.model.eval()
    for prompt, answer in zip(asked, ours, strict=True):
        ids = torch.from_numpy(prompt.asked.astype(np.int64))[None]
        words = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": prompt.end, "use_cache": True}
        theirs = trainable.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **words)
        assert answer.tolist() == theirs[0, ids.shape[1] :].tolist()


def test_a_resumed_run_says_the_later_ones_again(run: Path, tmp_path: Path, prepare: Any) -> None:
    """Interrupted after its first evaluation, a run ends with the very lines of one that was not."""
    again = tmp_path / "again"
    train(prepare(again, *EVALUATED))
    for path in (again / "checkpoints").glob("step-0000008"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    train(prepare(again, *EVALUATED))
    strip = [{k: v for k, v in line.items() if k != "time"} for line in said(again)]
    assert strip == [{k: v for k, v in line.items() if k != "time"} for line in said(run)]


def test_tensorboard_shows_the_texts(run: Path) -> None:
    """The prompts are texts of their own, by the line of the data file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tag = f"samples/line {said(run)[0]['line']}"
    shown = events.Tensors(tag)
    assert [event.step for event in shown] == [4, 8]
    assert said(run)[0]["answered"] in shown[0].tensor_proto.string_val[0].decode()
