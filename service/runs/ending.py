"""How a run ended, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from service.runs.state import RunState
from service.telemetry.names import Outcome


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended. `error` is `{code, message}` where something failed."""

    outcome: Outcome
    finish_reason: str = "stop"
    error: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """Cost of a run: tokens times a price for a million, plus seconds of model calls."""

    prompt: float = 0.0
    completion: float = 0.0
    second: float = 0.0

    def cost(self, state: RunState) -> float:
        """What the run has cost so far."""
        tokens = state.prompt_tokens * self.prompt + state.completion_tokens * self.completion
        return tokens / 1e6 + state.model_seconds * self.second
