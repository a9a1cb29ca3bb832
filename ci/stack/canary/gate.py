"""The gate before traffic: the canary answers golden prompts and calls tools by their schema, or gets no traffic.

The service's own evals are run inside the canary's container against itself, so they see what a client would see and
nothing has to be published for it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ci.stack import secrets
from ci.stack.canary.state import State
from ci.stack.canary.traffic import Judge
from ci.stack.errors import UsageError
from ci.stack.project import ROOT, Project

HERE = Path(__file__).parent
GOLDEN = HERE / "golden.jsonl"
"""Prompts that any instruction-tuned model answers."""
DEMO = ROOT / "models" / "demo" / "golden.jsonl"
"""Prompts of the demo model's small subject."""

EVALS = ["/app/.venv/bin/python", "-m", "service", "evals", "run", "/dev/stdin", "--url", "http://localhost:8000/v1"]


def judge(golden: str) -> Judge:
    """A judge over a file of golden prompts (docs/evals.md); empty: the set that fits the stack's model.

    Raises UsageError for a file that cannot be read.
    """

    def judged(stack: Project, state: State) -> str:
        path = Path(golden) if golden else DEMO if stack.offline else GOLDEN
        try:
            cases = path.read_text()
        except OSError as error:
            raise UsageError(f"Cannot read the golden prompts, {path}: {error.strerror}.") from error
        key = secrets.show(stack.state, "api_key")
        container = stack.compose("ps", "--quiet", "agent-canary", capture=True).stdout.strip()
        done = subprocess.run(
            ["docker", "exec", "--interactive", "--env", "AGENT_LOOP_API_KEY", container, *EVALS],
            env={**os.environ, "AGENT_LOOP_API_KEY": key},
            input=cases,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return ""
        said = [line.strip(" │") for line in (done.stderr or done.stdout).splitlines()]
        return next((line for line in reversed(said) if any(c.isalnum() for c in line)), f"status {done.returncode}")

    return judged
