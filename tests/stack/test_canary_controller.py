"""A release ends promoted or rolled back for a stated reason, whatever crashes on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci.stack.canary import controller, state
from ci.stack.canary.controller import Move, Observation
from ci.stack.canary.gates import Histogram, Rate
from ci.stack.canary.plan import LOOKS, Plan, parse_steps
from ci.stack.canary.state import State, Status
from ci.stack.errors import StackError, UsageError

PLAN = Plan(samples=100, min_seconds=60, max_seconds=3600)
START = State("v2", "agent-loop/runtime@sha256:new", "agent-loop/runtime@sha256:old", PLAN)
RUNNING = replace(START, status=Status.RUNNING, step_started=1000.0)


def seen(runs: int, bad: int = 0, alerts: tuple[str, ...] = ()) -> Observation:
    """Both variants with plenty of runs; the canary with so many failed ones."""
    return Observation(
        runs,
        stable={"run_failures": Rate(20, 1000), "first_token": Histogram((10, 200, 100, 10))},
        canary={"run_failures": Rate(bad, max(runs, 1)), "first_token": Histogram((1, runs // 2, runs // 4, 1))},
        alerts=alerts,
    )


class Killed(Exception):
    """The controller died here."""


class FakeWorld:
    """A world that counts what is done to it and may kill the controller at the n-th action."""

    def __init__(self, bad_share: float, kill_at: int = -1, gate: str = "") -> None:
        self.bad_share, self.kill_at, self.refused = bad_share, kill_at, gate
        self.percent, self.image, self.clock, self.actions = 0, "old", 1000.0, 0

    def _act(self) -> None:
        self.actions += 1
        if self.actions == self.kill_at:
            raise Killed

    def gate(self, state: State) -> str:
        self._act()
        return self.refused

    def traffic(self, percent: int) -> None:
        self.percent = percent
        self._act()

    def observe(self, since: float, until: float) -> Observation:
        self._act()
        self.clock += 30
        runs = int((self.clock - since) * 2)
        return seen(runs, int(runs * self.bad_share))

    def promote(self, state: State) -> None:
        self.image = "new"
        self._act()
        self.percent = 0

    def withdraw(self, state: State) -> None:
        self.image = "old"
        self._act()
        self.percent = 0


def release(world: FakeWorld, folder: Path) -> State:
    """Run the controller, starting it again each time it is killed."""
    state.save(folder, START)

    def loaded() -> State:
        found = state.load(folder)
        assert found is not None
        return found

    def wait(seconds: float) -> None:
        world.clock += seconds

    while True:
        try:
            return controller.run(
                loaded, lambda s: state.save(folder, s), world, now=lambda: world.clock, sleep=wait, poll=30
            )
        except Killed:
            continue


class TestDecide:
    def test_waits_for_samples(self) -> None:
        """Too few runs decide nothing, however good or bad they are."""
        assert controller.decide(RUNNING, seen(10, 10), 1100).move is Move.WAIT

    def test_the_first_look_acts_on_harm_only(self) -> None:
        """Halfway through the samples a bad canary goes, a good one goes on."""
        assert controller.decide(RUNNING, seen(50, 25), 1100).move is Move.ROLL_BACK
        assert controller.decide(RUNNING, seen(50, 1), 1100).move is Move.LOOKED

    def test_a_step_lasts_its_shortest_duration(self) -> None:
        """Enough runs too soon are no reason to go on, and cost no look."""
        looked = replace(RUNNING, looks_done=1)
        assert controller.decide(looked, seen(500, 8), 1030).move is Move.WAIT
        assert controller.decide(looked, seen(500, 8), 1070).move is Move.ADVANCE

    def test_the_last_step_promotes(self) -> None:
        """Passing at 100 % ends the release."""
        last = replace(RUNNING, step=len(PLAN.steps) - 1, looks_done=1)
        assert controller.decide(last, seen(500, 8), 1100).move is Move.PROMOTE

    def test_a_page_rolls_back_at_once(self) -> None:
        """A burn-rate page needs no statistics."""
        decision = controller.decide(RUNNING, seen(0, alerts=("AvailabilityBurn",)), 1001)
        assert decision.move is Move.ROLL_BACK
        assert "AvailabilityBurn" in decision.reason

    def test_no_traffic_for_too_long_is_inconclusive(self) -> None:
        """A canary nobody talks to is rolled back, not left for ever."""
        assert controller.decide(RUNNING, seen(3), 1000 + 3601).move is Move.ROLL_BACK

    def test_neither_good_nor_bad_at_the_last_look_is_inconclusive(self) -> None:
        """What cannot be told apart with twice the samples does not pass."""
        wide = replace(RUNNING, looks_done=len(LOOKS) - 1)
        decision = controller.decide(wide, seen(200, 8), 1100)
        assert decision.move is Move.ROLL_BACK
        assert decision.reason.startswith("inconclusive: run_failures")

    def test_paused_moves_nothing(self) -> None:
        """A paused release waits even for harm."""
        assert controller.decide(replace(RUNNING, status=Status.PAUSED), seen(500, 400), 1100).move is Move.WAIT


class TestRelease:
    def test_a_good_canary_is_promoted_through_every_step(self, tmp_path: Path) -> None:
        """Each percentage is served in turn, then the new image is."""
        world = FakeWorld(bad_share=0.02)
        end = release(world, tmp_path)
        assert (end.status, world.image, world.percent) == (Status.PROMOTED, "new", 0)
        told = " ".join(event.what for event in end.history)
        assert all(f"{percent} % from now on" in told for percent in PLAN.steps)

    def test_a_bad_canary_is_rolled_back_and_says_why(self, tmp_path: Path) -> None:
        """The gate that failed is named."""
        world = FakeWorld(bad_share=0.5)
        end = release(world, tmp_path)
        assert (end.status, world.image, world.percent) == (Status.ROLLED_BACK, "old", 0)
        assert "run_failures" in end.reason

    def test_the_gate_before_traffic_keeps_traffic_away(self, tmp_path: Path) -> None:
        """A variant that fails its model tests never serves anybody."""
        world = FakeWorld(bad_share=0.0, gate="tool calls do not match their schema")
        end = release(world, tmp_path)
        assert end.status is Status.ROLLED_BACK
        assert "tool calls" in end.reason
        assert world.percent == 0

    @settings(max_examples=20, deadline=None)
    @given(kill_at=st.integers(1, 60), bad_share=st.sampled_from([0.02, 0.5]))
    def test_a_crash_anywhere_ends_as_without_one(
        self, tmp_path_factory: pytest.TempPathFactory, kill_at: int, bad_share: float
    ) -> None:
        """Killed at any action and started again, the release ends in the same state with the same image."""
        whole = release(whole_world := FakeWorld(bad_share), tmp_path_factory.mktemp("whole"))
        killed = release(killed_world := FakeWorld(bad_share, kill_at), tmp_path_factory.mktemp("killed"))
        assert (killed.status, killed_world.image, killed_world.percent) == (
            whole.status,
            whole_world.image,
            whole_world.percent,
        )

    def test_an_abort_from_outside_wins(self, tmp_path: Path) -> None:
        """`abort` while Prometheus is being asked is not overwritten by what the controller decided meanwhile."""
        world = FakeWorld(bad_share=0.02)
        observe: Callable[[float, float], Observation] = world.observe

        def abort_meanwhile(since: float, until: float) -> Observation:
            found = state.load(tmp_path)
            assert found is not None
            state.save(tmp_path, replace(found, status=Status.ROLLING_BACK, reason="aborted by a person"))
            return observe(since, until)

        world.observe = abort_meanwhile  # type: ignore[method-assign]
        end = release(world, tmp_path)
        assert (end.status, world.image) == (Status.ABORTED, "old")


class TestState:
    @given(
        st.sampled_from(list(Status)),
        st.integers(0, 3),
        st.lists(st.tuples(st.floats(0, 2e9), st.text(max_size=30)), max_size=3),
    )
    def test_comes_back_as_it_was_written(self, status: Status, step: int, events: list[tuple[float, str]]) -> None:
        """Saving and loading is the identity, whatever is in it."""
        import tempfile

        written = replace(START, status=status, step=step, history=tuple(state.Event(*event) for event in events))
        with tempfile.TemporaryDirectory() as folder:
            state.save(Path(folder), written)
            assert state.load(Path(folder)) == written

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"plan": 3}', json.dumps({"plan": {"steps": [1]}})])
    def test_a_broken_file_is_named(self, text: str, tmp_path: Path) -> None:
        """A file that is no state says which file and what to do."""
        state.path(tmp_path).write_text(text)
        with pytest.raises(StackError, match=r"canary\.json.*Move it away"):
            state.load(tmp_path)


@pytest.mark.parametrize("text", ["", "10,5,100", "0,100", "10,50", "a,100", "10,,100", "50,101"])
def test_steps_that_make_no_sense_are_refused(text: str) -> None:
    """Steps rise from 1 or more to 100 and nothing else is taken."""
    with pytest.raises(UsageError, match="100"):
        Plan(steps=parse_steps(text))
