"""The world a release acts on: the compose project, the proxy's split, Prometheus and the gate before traffic.

Everything may be repeated: a container that runs is left alone, a split that stands is written again, an image that is
served is served again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ci.stack import images, project, proxy
from ci.stack.canary import observe
from ci.stack.canary.controller import Observation
from ci.stack.canary.state import State
from ci.stack.errors import StartFailed
from ci.stack.project import Project

Judge = Callable[[Project, State], str]
"""Tests the canary without traffic; returns why it must not get any, or nothing."""


@dataclass(frozen=True)
class ComposeWorld:
    """A production stack. `judge` is the gate before traffic."""

    stack: Project
    judge: Judge
    variant: str

    def gate(self, state: State) -> str:
        """Start the canary without traffic, wait until it is healthy, and test it."""
        self._record(AGENT_LOOP_IMAGE_CANARY=state.image, AGENT_LOOP_CANARY_VARIANT=state.variant)
        started = self._compose("--profile", "canary", "up", "--detach", "--wait", "--no-deps", "agent-canary")
        return "its container did not become healthy" if started else self.judge(self.stack, state)

    def traffic(self, percent: int) -> None:
        """Write the split and let the proxy read it. Live sessions stay where they are."""
        proxy.split(self.stack.state, percent, self.variant, deployed=True)
        proxy.reload(self.stack)

    def observe(self, since: float, until: float) -> Observation:
        """Ask Prometheus."""

        def ask(expression: str, at: float) -> list[dict[str, object]]:
            words = ("exec", "--no-TTY", "prometheus", *observe.query(expression, at))
            return observe.answer(self.stack.compose(*words, capture=True).stdout, expression)

        return observe.observe(ask, since, until)

    def promote(self, state: State) -> None:
        """Serve the canary's image as the stable one, then let the canary go."""
        self._record(**{images.RUNTIME.variable: state.image})
        if self._compose("up", "--detach", "--wait", "--no-deps", "agent"):
            raise StartFailed("The promoted image did not become healthy as 'agent'. 'agent-loop rollback' goes back.")
        self.withdraw(state)

    def withdraw(self, state: State) -> None:
        """No new sessions for the canary, then end its container, which drains what it has."""
        proxy.split(self.stack.state, 0, self.variant, deployed=False)
        proxy.reload(self.stack)
        self._compose("--profile", "canary", "rm", "--stop", "--force", "agent-canary")

    def _compose(self, *words: str) -> int:
        return self.stack.compose(*words).returncode

    def _record(self, **values: str) -> None:
        recorded = project.read_env(self.stack.images_env) | values
        project.write_env(self.stack.images_env, recorded, "Written by 'agent-loop': what runs, by digest.")
