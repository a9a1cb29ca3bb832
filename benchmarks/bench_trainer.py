"""`make bench-trainer`: our loop beside TRL's on this CPU, as ratios within one run.

1. seconds a step and peak memory at equal settings (goal: at most TRL's), on the smallest shape: rows of full
   length, where packing gives nothing, and chats, where ours packs and TRL pads;
2. the loss head against materialised logits, at Gemma's 256 000 rows;
3. packing against padding: the share of a batch that is real tokens;
4. resume: the largest difference of any loss after going on, ours and TRL's.

Prints one JSON object a line; each ratio is ours divided by the other's, so below 1 is better.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


def main() -> None:
    """Each part in a process of its own, so that peak memory is that part's."""
    if len(sys.argv) > 1:
        PARTS[sys.argv[1]]()
        return
    speed()
    for part in ("head-fused", "head-plain", "packing", "resume-ours", "resume-trl"):
        done = subprocess.run([sys.executable, __file__, part], capture_output=True, text=True)
        tail = (done.stdout or done.stderr).strip().splitlines()
        print(tail[-1] if tail else json.dumps({"part": part, "exit": done.returncode}), flush=True)


def speed() -> None:
    """Ours and TRL's steps, through the same arms as on a card: rows of full length, then chats of many lengths."""
    common = ["--shape", "tiny", "--device", "cpu", "--steps", "6", "--warmup", "2", "--length", "256"]
    for workload in ("packed", "chat"):
        words = [*common, "--workload", workload, "--arms", "ours-safe,trl"]
        subprocess.run([sys.executable, str(HERE / "gpu.py"), *words], check=True)


def head(fused: bool) -> None:
    """Forward and backward of the head for 256 learned tokens, bf16."""
    import torch

    from trainer.kernels.frozen_head_ce import frozen_head_ce

    torch.manual_seed(0)
    weight = torch.empty(256_000, 256, dtype=torch.bfloat16).normal_(0, 0.05)  # in place: no peak of its own
    hidden = torch.randn(256, 256).bfloat16().requires_grad_()
    targets = torch.randint(0, 256_000, (256,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if fused:
        loss = frozen_head_ce(hidden, weight, targets, softcap=30.0, chunk=64)
    else:
        logits = torch.tanh((hidden @ weight.t()).float() / 30.0) * 30.0
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    loss.backward()
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    name = "head-fused" if fused else "head-plain"
    print(
        json.dumps(
            {"part": name, "seconds": round(seconds, 3), "memory_mib": round(grown), "loss": round(loss.item(), 2)}
        )
    )


def packing() -> None:
    """Share of real tokens in batches of 8, rows as they come against packed rows."""
    import numpy as np

    from trainer.data.packing import pack

    draw = np.random.default_rng(0)
    lengths = [int(min(1024, max(16, n))) for n in draw.lognormal(np.log(220) - 0.32, 0.8, 512)]
    padded = sum(8 * max(lengths[i : i + 8]) for i in range(0, 512, 8))
    groups = pack(lengths, 1024)
    sums = [sum(lengths[i] for i in group) for group in groups]
    packed = sum(len(sums[i : i + 8]) * max(sums[i : i + 8]) for i in range(0, len(sums), 8))
    real = sum(lengths)
    print(
        json.dumps({"part": "packing", "real_padded": round(real / padded, 3), "real_packed": round(real / packed, 3)})
    )


def resume_ours() -> None:
    """Twelve steps, then again from step 4: the largest difference of a loss."""
    import shutil

    from trainer import checkpoint, metrics
    from trainer.launch import Request, prepare_job
    from trainer.loop import train

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        request = Request(
            "tiny", sets=("run.max_steps=12", "checkpoint.every=4", "checkpoint.keep=9", "lora.dropout=0.05")
        )

        def go() -> dict[float, float]:
            train(prepare_job(request, run))
            return {r["step"]: r["loss"] for r in metrics.read(run / "metrics.jsonl") if "loss" in r}

        first = go()
        for path in checkpoint.folders(run / "checkpoints")[2:]:
            shutil.rmtree(path)
        second = go()
    print(json.dumps({"part": "resume-ours", "largest_difference": max(abs(first[s] - second[s]) for s in first)}))


def resume_trl() -> None:
    """The same with SFTTrainer's own checkpoints."""
    import numpy as np
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from trainer import config, model, tiny
    from trainer.data.dataset import prepare
    from trainer.data.template import ChatTokenizer

    with tempfile.TemporaryDirectory() as folder:
        base = tiny.make(Path(folder) / "base")
        settings = config.resolve("tiny", sets=["lora.dropout=0.05"]).config
        rows = prepare(settings.data, ChatTokenizer.load(base), 0).rows
        table = Dataset.from_dict(
            {
                "input_ids": [r.ids.tolist() for r in rows],
                "labels": [np.where(r.supervised, r.ids, -100).tolist() for r in rows],
            }
        )

        def go(checkpoint: str | None) -> dict[int, float]:
            peft = model.attach(model.load_base(settings, base), settings)
            arguments: dict[str, Any] = {"max_steps": 12, "save_steps": 4, "logging_steps": 1, "learning_rate": 2e-3}
            trainer = SFTTrainer(
                model=peft,
                args=SFTConfig(
                    output_dir=f"{folder}/trl",
                    per_device_train_batch_size=8,
                    optim="adamw_8bit",
                    bf16=False,
                    use_cpu=True,
                    report_to=[],
                    disable_tqdm=True,
                    **arguments,
                ),
                train_dataset=table,
                processing_class=AutoTokenizer.from_pretrained(base),
            )
            trainer.train(resume_from_checkpoint=checkpoint)
            return {e["step"]: e["loss"] for e in trainer.state.log_history if "loss" in e}

        first = go(None)
        second = go(f"{folder}/trl/checkpoint-4")
    later = [s for s in first if s > 4 and s in second]
    print(json.dumps({"part": "resume-trl", "largest_difference": max(abs(first[s] - second[s]) for s in later)}))


PARTS = {
    "head-fused": lambda: head(True),
    "head-plain": lambda: head(False),
    "packing": packing,
    "resume-ours": resume_ours,
    "resume-trl": resume_trl,
}

if __name__ == "__main__":
    main()
