"""Training speed and memory of our arms and TRL's, one subprocess and one JSON line an arm.

    python benchmarks/gpu.py --shape gemma-2b --workload packed > gpu.jsonl     # on a card
    python benchmarks/gpu.py --shape tiny --device cpu --steps 3 --warmup 1     # the same paths anywhere

Needs no network: the model is drawn at random at the shape's sizes (saved once in --work), tokens are drawn too.

arms        ours-safe      NF4, layers recomputed, no compilation
            ours-planned   what the plan chooses for this card
            trl            SFTTrainer as installed, NF4, its own loss head, layers recomputed
workloads   packed         sequences of full length, every token learned
            chat           log-normal lengths (mean 220, at most --length), 40 % learned; packed where the arm can

Only real tokens count, never padding. Times are medians over --steps after --warmup; on a CPU that does other work
too, `processor` (the process's own time) is the ratio to trust. `first_loss` must agree between
arms (1e-2) for the comparison to mean anything; the last line says whether it does, and gives the ratios.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

ARMS = ("ours-safe", "ours-planned", "trl")


def main() -> None:
    """Run each arm in a process of its own and print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="gemma-2b", help="tiny, gemma-2b, gemma-9b, gemma-3-1b, gemma-3-4b")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--workload", choices=("packed", "chat"), default="packed")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "agent-loop-bench")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(options)), flush=True)
        return
    make_base(options.shape, options.work)
    lines = []
    for arm in options.arms.split(","):
        words = [sys.executable, __file__, *sys.argv[1:], "--arm", arm]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            line = {"arm": arm, "error": done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode}
        else:
            line = json.loads(done.stdout.strip().splitlines()[-1])
        print(json.dumps(line), flush=True)
        lines.append(line)
    print(json.dumps(compare(lines)), flush=True)


def compare(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of each arm to TRL, and whether all began at the same loss."""
    good = [line for line in lines if "error" not in line]
    base = next((line for line in good if line["arm"] == "trl"), None)
    first = [line["first_loss"] for line in good]
    out: dict[str, Any] = {"same_first_loss": bool(first) and max(first) - min(first) < 1e-2}
    for line in good if base else []:
        assert base is not None
        out[line["arm"]] = {
            "speed": round(line["tokens_per_second"] / base["tokens_per_second"], 3),
            "processor": round(line["processor_seconds_per_step"] / base["processor_seconds_per_step"], 3),
            "memory": round(line["peak_bytes"] / base["peak_bytes"], 3),
        }
    return out


def make_base(shape: str, work: Path) -> Path:
    """The model's folder: random weights at the shape's sizes, saved once."""
    from trainer import presets, tiny

    folder = work / shape
    if (folder / "model.safetensors").exists() or (folder / "model.safetensors.index.json").exists():
        return folder
    if shape == "tiny":
        return tiny.make(folder)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = dict(presets.PRESETS[shape].shape)
    if sizes["attn_logit_softcapping"] is None:
        del sizes["attn_logit_softcapping"]
    config = AutoConfig.for_model(sizes.pop("model_type"), **sizes, initializer_range=0.02)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def rows(options: argparse.Namespace, vocabulary: int, count: int) -> list[Any]:
    """Drawn rows: equal for every arm."""
    from trainer.data.template import Encoded

    draw = np.random.default_rng(0)
    out = []
    for _ in range(count):
        if options.workload == "packed":
            length, learned = options.length, 1.0
        else:
            length, learned = int(min(options.length, max(16, draw.lognormal(np.log(220) - 0.32, 0.8)))), 0.4
        ids = draw.integers(8, vocabulary, length).astype(np.int32)
        supervised = np.arange(length) >= max(1, round(length * (1 - learned)))
        out.append(Encoded(ids, supervised))
    return out


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One arm in this process."""
    from trainer import cards, config, plan
    from trainer.shape import Shape

    folder = options.work / options.shape
    shape = Shape.read(json.loads((folder / "config.json").read_text()))
    sets = [f"data.max_length={options.length}", f"run.device={options.device}"]
    settings = config.resolve(options.shape, sets=sets).config
    card = cards.detect() if options.device == "cuda" else None
    if options.arm == "ours-planned":
        settings = plan.apply(settings, plan.make_plan(settings, shape, card))
    else:
        memory = settings.memory.model_copy(
            update={
                "checkpointing": "full",
                "resident": "off",
                "compile": "off",
                "attention": "eager" if card is None else "flex_attention" if shape.softcap else "sdpa",
            }
        )
        settings = settings.model_copy(update={"memory": memory})
    total = options.steps + options.warmup
    data = rows(options, shape.vocab, total * settings.batch.micro * settings.batch.accumulation)
    run = _trl if options.arm == "trl" else _ours
    seconds, processor, first, tokens = run(folder, settings, data, total, options)
    kept = seconds[options.warmup :]
    rate = sum(tokens[options.warmup :]) / sum(kept)
    flops = shape.flops(settings.lora.rank, options.length, level=settings.memory.checkpointing)
    peak = card.tflops if card else None
    return {
        "arm": options.arm,
        "shape": options.shape,
        "workload": options.workload,
        "device": card.name if card else "cpu",
        "micro": settings.batch.micro,
        "accumulation": settings.batch.accumulation,
        "seconds_per_step": round(statistics.median(kept), 4),
        "processor_seconds_per_step": round(statistics.median(processor[options.warmup :]), 4),
        "tokens_per_second": round(rate, 1),
        "mfu": round(rate * flops / (peak * 1e12), 4) if peak else None,
        "peak_bytes": _peak(options.device),
        "first_loss": first,
    }


def _ours(
    folder: Path, settings: Any, data: list[Any], total: int, options: argparse.Namespace
) -> tuple[list[float], list[float], float, list[int]]:
    import torch

    from trainer import model, optimizer, step
    from trainer.data import packing
    from trainer.data.dataset import Dataset

    trainable = model.prepare(settings, folder, torch.device(options.device), 0)
    trainable.model.train()
    adamw = optimizer.make_optimizer(settings, trainable)
    size = settings.batch.micro * settings.batch.accumulation
    groups: list[list[tuple[int, ...]]] = []
    for number in range(total):
        indices = range(number * size, (number + 1) * size)
        packed = packing.pack([len(data[i]) for i in indices], options.length)
        groups.append([tuple(indices[i] for i in group) for group in packed])
    dataset = Dataset(tuple(data), (), (), (), 0, None, "")  # type: ignore[arg-type]
    seconds, processor, first, tokens = [], [], 0.0, []
    for number in range(total):
        start, used = time.perf_counter(), time.process_time()
        loss, _ = step.accumulate(
            trainable,
            dataset,
            groups[number],
            step.supervised_tokens(dataset, groups[number]),
            micro=settings.batch.micro,
            pad_id=0,
            chunk=settings.memory.loss_chunk,
            on_retry=lambda micro, level: None,
        )
        torch.nn.utils.clip_grad_norm_(trainable.parameters, settings.optimizer.clip)
        adamw.step()
        adamw.zero_grad()
        _wait(options.device)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
        tokens.append(step.all_tokens(dataset, groups[number]))
        first = loss.item() if number == 0 else first
    return seconds, processor, first, tokens


def _trl(
    folder: Path, settings: Any, data: list[Any], total: int, options: argparse.Namespace
) -> tuple[list[float], list[float], float, list[int]]:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from trainer import model

    base = model.load_base(settings, folder, options.device)
    peft = model.attach(base, settings)
    stamps: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            _wait(options.device)
            stamps.append((time.perf_counter(), time.process_time()))

        def on_step_end(self, *_: Any, **__: Any) -> None:
            _wait(options.device)
            stamps.append((time.perf_counter(), time.process_time()))

    table = Dataset.from_dict(
        {
            "input_ids": [r.ids.tolist() for r in data],
            "labels": [np.where(r.supervised, r.ids, -100).tolist() for r in data],
        }
    )
    plain = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    with tempfile.TemporaryDirectory() as output:
        trainer = SFTTrainer(
            model=peft,
            args=SFTConfig(
                output_dir=output,
                max_steps=total,
                per_device_train_batch_size=settings.batch.micro,
                gradient_accumulation_steps=settings.batch.accumulation,
                learning_rate=settings.optimizer.lr,
                lr_scheduler_type="constant",
                optim="adamw_8bit",
                max_length=options.length,
                bf16=options.device == "cuda",
                use_cpu=options.device == "cpu",
                gradient_checkpointing=True,
                train_sampling_strategy="sequential",
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=table,
            processing_class=PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>"),
            callbacks=[Clock()],
        )
        trainer.train()
    first = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    size = settings.batch.micro * settings.batch.accumulation
    tokens = [sum(len(r) for r in data[n * size : (n + 1) * size]) for n in range(total)]
    assert torch.isfinite(torch.tensor(first))
    pairs = list(zip(stamps[::2], stamps[1::2], strict=True))
    return [b[0] - a[0] for a, b in pairs], [b[1] - a[1] for a, b in pairs], first, tokens


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _peak(device: str) -> int:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
