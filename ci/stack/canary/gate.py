"""The gate before traffic: the canary answers golden prompts and calls tools by their schema, or gets no traffic.

The service's own evals are run inside the canary's container against itself, so they see what a client would see and
nothing has to be published for it.
"""

from __future__ import annotations

from ci.stack.canary.state import State
from ci.stack.canary.traffic import Judge
from ci.stack.project import Project

EVALS = ["exec", "--no-TTY", "agent-canary", "/app/.venv/bin/python", "-m", "service", "evals", "run"]


def judge(golden: str) -> Judge:
    """A judge over a file of golden prompts inside the image (empty: the service's own set)."""

    def judged(stack: Project, state: State) -> str:
        words = [*EVALS, *([golden] if golden else []), "--base-url", "http://localhost:8000/v1"]
        done = stack.compose(*words, capture=True)
        if done.returncode == 0:
            return ""
        lines = (done.stderr or done.stdout).strip().splitlines()
        return lines[-1] if lines else f"its evals ended with {done.returncode}"

    return judged
