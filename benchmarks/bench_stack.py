"""`agent-loop up` with nothing changed beside `docker compose up` on the same files: seconds, ratio, in one run.

    python -m benchmarks.bench_stack [--turns 7] [--mode dev|prod] [--json FILE]

Starts a stack of its own, offline (other names, ports and network than a person's), asks both in turn, and takes it
away again. The baseline is what the wrapper itself runs: `docker compose … up --detach --wait`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.service.servers import free_port
from ci.stack import project

PORTS = ("AGENT_LOOP_PORT", "PROMETHEUS_PORT", "HTTP_PORT", "HTTPS_PORT")


def timed(action: Callable[[], object]) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def agent_loop(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "ci.cli", *words], cwd=project.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"agent-loop {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def compose(stack: project.Project) -> None:
    words = ("up", "--detach", "--wait", "--wait-timeout", "300", "--remove-orphans", "--quiet-pull")
    done = stack.compose(*words, capture=True)
    if done.returncode:
        raise SystemExit(f"docker compose up ended with {done.returncode}:\n{done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="how often each is asked")
    parser.add_argument("--mode", choices=("dev", "prod"), default="dev")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="al-bench-") as folder:
        os.environ |= {
            "AGENT_LOOP_PROJECT": "al-bench",
            "AGENT_LOOP_STATE": f"{folder}/state",
            "AGENT_NETWORK_SUBNET": "172.29.9.0/24",
            **{port: str(free_port()) for port in PORTS},
        }
        try:
            agent_loop("up", given.mode, "--offline")
            stack = project.remembered(project.state_folder())
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(given.turns):
                theirs.append(timed(lambda: compose(stack)))
                ours.append(timed(lambda: agent_loop("up", given.mode, "--offline")))
        finally:
            agent_loop("down", "--volumes", "--yes")
    figures = {
        "mode": given.mode,
        "ours": statistics.median(ours),
        "compose": statistics.median(theirs),
        "ratio": statistics.median(ours) / statistics.median(theirs),
        "beyond": statistics.median(ours) - statistics.median(theirs),
        "load": os.getloadavg()[0],
    }
    print(f"load {figures['load']:.1f} on {os.cpu_count()} cores, medians of {given.turns}")
    print(f"agent-loop up {given.mode} --offline, nothing changed  {figures['ours']:.2f} s")
    print(f"docker compose up on the same files       {figures['compose']:.2f} s")
    print(f"ratio {figures['ratio']:.2f}, beyond compose's own {figures['beyond']:.2f} s")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
