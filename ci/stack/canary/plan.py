"""What is decided before any traffic moves: the steps, when to look, which gates hold, and with what margins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ci.stack.errors import UsageError

LOOKS = (0.5, 1.0, 2.0)
"""At which multiples of a step's samples the numbers are looked at. Before 1 only harm is acted on; from 1 on a step
may pass; at the last one it must, or the canary is rolled back as inconclusive."""


@dataclass(frozen=True)
class Gate:
    """One thing that must not get worse: its name among the observations, and by how much is too much."""

    name: str
    margin: float
    kind: Literal["rate", "latency"] = "rate"


GATES = (
    Gate("http_errors", 0.02),
    Gate("run_failures", 0.03),
    Gate("limits_hit", 0.05),
    Gate("tool_errors", 0.05),
    Gate("task_failures", 0.05),
    Gate("refusals", 0.05),
    Gate("retries", 0.05),
    Gate("thumbs_down", 0.10),
    Gate("first_token", 0.10, "latency"),
)


@dataclass(frozen=True)
class Plan:
    """The plan of one canary."""

    steps: tuple[int, ...] = (10, 25, 50, 100)
    """Percent of new sessions that go to the canary, rising; the last is 100."""
    samples: int = 200
    """Ended runs of the canary that a step needs before it may pass."""
    min_seconds: float = 300.0
    """Shortest duration of a step."""
    max_seconds: float = 86_400.0
    """Longest; after it the canary is rolled back as inconclusive."""
    alpha: float = 0.05
    """Chance of rolling back a canary that is exactly `margin` worse in one gate, over the whole release."""
    risk: float = 0.10
    """A step passes when every gate's risk of being worse by its margin is at most this."""
    gates: tuple[Gate, ...] = field(default=GATES)

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not self.steps or not rising or self.steps[0] < 1 or self.steps[-1] != 100:
            text = ",".join(map(str, self.steps))
            raise UsageError(f"Steps '{text}' must rise from 1 or more to 100, such as 10,25,50,100.")
        if self.samples < 10:
            raise UsageError(f"--samples {self.samples} decides nothing. Use 10 or more.")
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise UsageError(f"A step cannot last at least {self.min_seconds:g} and at most {self.max_seconds:g} s.")

    @property
    def looks(self) -> int:
        """All looks of the release, for spending alpha."""
        return len(self.steps) * len(LOOKS)


def parse_steps(text: str) -> tuple[int, ...]:
    """`10,25,50,100` as numbers. Raises UsageError naming the word that is none."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not word.isdigit():
            raise UsageError(f"'{word}' is no percentage, in --steps {text}. Use whole numbers such as 10,25,50,100.")
    return tuple(map(int, words))
