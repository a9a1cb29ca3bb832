"""Deciding what a release does next, and the loop that carries it out.

`decide` is pure: a state, what was observed since the step began, and the time give a decision. `run` saves each
decision before it acts, so a controller that is killed at any point is followed by one that does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ci.stack.canary.gates import Histogram, Rate, alpha_at, latency_risk, rate_risk
from ci.stack.canary.plan import LOOKS, Gate
from ci.stack.canary.state import State, Status


class Move(StrEnum):
    """What to do next."""

    WAIT = "wait"
    LOOKED = "looked"
    """A look was taken and nothing follows but going on."""
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Cost:
    """What one successful task cost: by the price table in its unit, and in seconds of model calls."""

    price: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.price:.4g}" if self.price else f"{self.seconds:.2f} model seconds"


@dataclass(frozen=True)
class Observation:
    """What Prometheus says of both variants since the step began."""

    canary_runs: int
    stable: Mapping[str, Rate | Histogram] = field(default_factory=dict)
    canary: Mapping[str, Rate | Histogram] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()
    """Names of page-level alerts that fire now."""
    stable_cost: Cost | None = None
    canary_cost: Cost | None = None
    """Cost per success; None before there was one. Told, not judged: what an answer may cost is for a person to say."""

    @property
    def told(self) -> str:
        """What a person should know besides the gates."""
        if self.canary_cost is None or self.stable_cost is None:
            return ""
        return f", a success costs {self.canary_cost} against {self.stable_cost}"


@dataclass(frozen=True)
class Decision:
    """A move and the sentence that says why."""

    move: Move
    reason: str


def risk_of(gate: Gate, seen: Observation) -> float | None:
    """The gate's risk, or None when a side has nothing to say about it."""
    stable, canary = seen.stable.get(gate.name), seen.canary.get(gate.name)
    if isinstance(stable, Rate) and isinstance(canary, Rate):
        return rate_risk(stable, canary, gate.margin) if stable.total and canary.total else None
    if isinstance(stable, Histogram) and isinstance(canary, Histogram):
        return latency_risk(stable, canary, gate.margin) if stable.total and canary.total else None
    return None


def decide(state: State, seen: Observation, now: float) -> Decision:
    """What follows from an observation at time `now` (seconds since the epoch)."""
    if state.status is not Status.RUNNING:
        return Decision(Move.WAIT, f"the release is {state.status}")
    if seen.alerts:
        return Decision(Move.ROLL_BACK, f"page-level alert {', '.join(seen.alerts)} fires")
    plan, lasted = state.plan, now - state.step_started
    # A look that may let the step pass waits for the step's shortest duration too, so that each is taken once.
    at = LOOKS[state.looks_done]
    due = seen.canary_runs >= plan.samples * at and (at < 1 or lasted >= plan.min_seconds)
    if not due:
        if lasted > plan.max_seconds:
            return Decision(Move.ROLL_BACK, f"inconclusive: {seen.canary_runs} runs in {lasted:.0f} s")
        return Decision(Move.WAIT, f"{seen.canary_runs} of {plan.samples} runs")
    risks = {gate: risk for gate in plan.gates if (risk := risk_of(gate, seen)) is not None}
    worst = max(risks, key=lambda gate: risks[gate], default=None)
    look = state.step * len(LOOKS) + state.looks_done
    if worst is not None and risks[worst] > 1 - alpha_at(look, plan.looks, plan.alpha, len(plan.gates)):
        return Decision(
            Move.ROLL_BACK, f"{worst.name} is worse by more than {worst.margin:g} (risk {risks[worst]:.4f})"
        )
    if at < 1:
        return Decision(Move.LOOKED, "no harm seen halfway")
    if all(risk <= plan.risk for risk in risks.values()):
        last = state.step == len(plan.steps) - 1
        return Decision(Move.PROMOTE if last else Move.ADVANCE, f"{seen.canary_runs} runs, every gate holds{seen.told}")
    if worst is not None and state.looks_done == len(LOOKS) - 1:
        return Decision(Move.ROLL_BACK, f"inconclusive: {worst.name} has risk {risks[worst]:.2f} at the last look")
    return Decision(Move.LOOKED, f"{worst.name if worst else 'nothing'} needs more runs")


def apply(state: State, decision: Decision, now: float) -> State:
    """The state that a decision leads to."""
    match decision.move:
        case Move.WAIT:
            return state
        case Move.LOOKED:
            return state.noted(now, decision.reason, looks_done=state.looks_done + 1)
        case Move.ADVANCE:
            percent = state.plan.steps[state.step + 1]
            what = f"{decision.reason}: {percent} % from now on"
            return state.noted(now, what, step=state.step + 1, step_started=now, looks_done=0)
        case Move.PROMOTE:
            return state.noted(now, f"{decision.reason}: promoted", status=Status.PROMOTING, reason=decision.reason)
        case Move.ROLL_BACK:
            return state.noted(now, decision.reason, status=Status.ROLLING_BACK, reason=decision.reason)


class World(Protocol):
    """What the loop acts on; everything in it may be repeated without harm."""

    def gate(self, state: State) -> str:
        """Start the canary without traffic and test it; return why it must not get any, or nothing."""
        ...

    def traffic(self, percent: int) -> None:
        """Send this share of new sessions to the canary."""
        ...

    def observe(self, since: float, until: float) -> Observation:
        """What happened between two times, in seconds since the epoch."""
        ...

    def promote(self, state: State) -> None:
        """Make the canary's image the served one and end the canary."""
        ...

    def withdraw(self, state: State) -> None:
        """End the canary; the served image stays."""
        ...


def run(
    load: Callable[[], State],
    save: Callable[[State], None],
    world: World,
    *,
    now: Callable[[], float],
    sleep: Callable[[float], None],
    poll: float = 15.0,
    say: Callable[[str], None] = lambda _: None,
) -> State:
    """Carry a release to its end. The state is read anew each round, so `pause` and `abort` work from outside."""
    applied: int | None = None
    while True:
        state = load()
        if state.status.final:
            return state
        if state.status is Status.GATE:
            refused = world.gate(state)
            if refused:
                what = f"the gate before traffic refuses: {refused}"
                state = state.noted(now(), what, status=Status.ROLLING_BACK, reason=what)
            else:
                state = state.noted(now(), f"{state.plan.steps[0]} % from now on", status=Status.RUNNING)
                state = state.noted(now(), "the first step begins", step_started=now())
            save(state)
            say(state.history[-1].what if refused else f"{state.percent} %: the gate before traffic holds")
            continue
        if state.percent != applied:
            world.traffic(state.percent)
            applied = state.percent
        if state.status is Status.PROMOTING:
            world.promote(state)
            save(state.noted(now(), "the canary's image is served", status=Status.PROMOTED))
            continue
        if state.status is Status.ROLLING_BACK:
            world.withdraw(state)
            final = Status.ABORTED if state.reason.startswith("aborted") else Status.ROLLED_BACK
            save(state.noted(now(), "the canary has ended", status=final))
            continue
        decision = decide(state, world.observe(state.step_started, now()), now())
        changed = apply(state, decision, now())
        # Somebody may have paused or aborted while Prometheus was asked: theirs stands.
        if changed is not state and load() == state:
            save(changed)
            say(f"{state.percent} %: {decision.reason}")
        elif decision.move is Move.WAIT:
            sleep(poll)
