"""Training speed and memory of our arms and others', one subprocess and one JSON line an arm.

    python benchmarks/gpu.py --shape gemma-2b --workload packed > gpu.jsonl     # on a card
    python benchmarks/gpu.py --shape tiny --device cpu --steps 3 --warmup 1     # the same paths anywhere
    python benchmarks/gpu.py --plan --card rtx-4090                             # what each arm would run

Needs no network: the model is drawn at random at the shape's sizes (saved once in --work), tokens are drawn too. The
arms and what they need are listed in `benchmarks/training/arms.py`; one whose library is not installed says so in its
line and the others go on, as they do when one dies, runs out of memory or takes longer than --timeout.

workloads   packed   sequences of full length, every token learned
            chat     log-normal lengths (mean 220, at most 1024), 40 % learned; packed, flat or padded as the arm can

All arms get the same rows in a step; only real tokens count, never padding. Times are medians over --steps after
--warmup, by the card's own clock; on a CPU that does other work too, `processor_seconds_per_step` is what to trust.
There `peak_bytes` is the whole process and `tensor_bytes` what one step's results hold at once.
`teraflops` counts useful operations alone, recomputation not, for every arm; `of_ceiling` is its share of what a large
matrix product reached first in the same run. `first_loss` must agree between arms (1e-2) for the comparison to mean
anything; the last line says whether it does, and gives the ratios, and how far the goals for a Hopper card are met.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.training import CannotRun, arms, workload  # noqa: E402
from trainer import cards  # noqa: E402

GOALS = {
    ("gemma-2b", "ours-safe"): 20_000,
    ("gemma-2b", "ours-planned"): 30_000,
    ("gemma-9b", "ours-planned"): 8_500,
}
"""Tokens a second on one H100 or H200, packed, written down before anything was measured."""


def main() -> None:
    """Run each arm in a process of its own and print its line."""
    options = parse(sys.argv[1:])
    if options.arm == "ceiling":
        from benchmarks.training.clock import ceiling

        print(json.dumps({"arm": "ceiling", "teraflops": round(ceiling(options.device), 3)}), flush=True)
    elif options.arm:
        print(json.dumps(attempt(options.arm, options)), flush=True)
    elif options.plan:
        card = cards.by_name(options.card) if options.card else cards.detect() if options.device == "cuda" else None
        for name in options.arms.split(","):
            print(json.dumps(arms.describe(name, options, card)), flush=True)
    else:
        workload.make_base(options.shape, options.work)
        lines: list[dict[str, Any]] = []
        for name in ("ceiling", *options.arms.split(",")):
            lines.append(in_process(name, options))
            print(json.dumps(lines[-1]), flush=True)
        print(json.dumps(compare(lines)), flush=True)


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="gemma-2b", help="tiny, gemma-2b, gemma-9b, gemma-3-1b, gemma-3-4b")
    parser.add_argument("--arms", default=",".join(arms.ARMS), help="with commas between them")
    parser.add_argument("--workload", choices=("packed", "chat"), default="packed")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds an arm may take")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "agent-loop-bench")
    parser.add_argument("--plan", action="store_true", help="print what each arm would run, and run nothing")
    parser.add_argument("--card", help="with --plan: for this card, such as rtx-4090")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    unknown = [name for name in options.arms.split(",") if name not in arms.ARMS]
    if unknown:
        parser.error(f"no arm {', '.join(unknown)}; there are {', '.join(arms.ARMS)}")
    if options.steps + options.warmup < 2:
        parser.error("--steps and --warmup are less than 2 together: the loss needs a step after the first")
    return options


def in_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The line of one arm, or why there is none: never an exception."""
    words = [sys.executable, __file__, *sys.argv[1:], "--arm", name]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=options.timeout)
    except subprocess.TimeoutExpired:
        return {"arm": name, "error": f"took longer than {options.timeout:.0f} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    if done.returncode == -signal.SIGKILL:
        return {"arm": name, "error": "killed: most often the machine's memory ran out"}
    if done.returncode < 0:
        return {"arm": name, "error": f"died of {signal.Signals(-done.returncode).name}"}
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return {"arm": name, "error": said[-1][:500]}


def attempt(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the arm here; what cannot run and memory that ran out are lines, anything else ends the process."""
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        return {"arm": name, "skipped": "torch sees no card; --device cpu runs on the CPU"}
    try:
        return arms.measure(name, options)
    except CannotRun as reason:
        return {"arm": name, "skipped": str(reason)}
    except (torch.OutOfMemoryError, MemoryError) as error:
        peak = torch.cuda.max_memory_allocated() if options.device == "cuda" else None
        return {"arm": name, "error": f"out of memory: {str(error).splitlines()[0][:200]}", "peak_bytes": peak}


def compare(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of each arm to TRL, whether all began at the same loss, and what became of the goals."""
    good = [line for line in lines if "tokens_per_second" in line]
    limit = next((line["teraflops"] for line in lines if line["arm"] == "ceiling" and "teraflops" in line), None)
    base = next((line for line in good if line["arm"] == "trl"), None)
    first = [line["first_loss"] for line in good]
    out: dict[str, Any] = {"same_first_loss": max(first) - min(first) < 1e-2 if len(first) > 1 else None}
    for line in good:
        found: dict[str, Any] = {"of_ceiling": round(line["teraflops"] / limit, 3) if limit else None}
        if base is not None:
            found["speed"] = round(line["tokens_per_second"] / base["tokens_per_second"], 3)
            found["processor"] = round(line["processor_seconds_per_step"] / base["processor_seconds_per_step"], 3)
            found["memory"] = round(line["peak_bytes"] / base["peak_bytes"], 3)
            if line.get("tensor_bytes") and base.get("tensor_bytes"):
                found["tensors"] = round(line["tensor_bytes"] / base["tensor_bytes"], 3)
        goal = GOALS.get((line["shape"], line["arm"]))
        if goal and line["workload"] == "packed" and ("H100" in line["device"] or "H200" in line["device"]):
            found["of_goal"] = round(line["tokens_per_second"] / goal, 3)
        out[line["arm"]] = found
    return out


if __name__ == "__main__":
    main()
