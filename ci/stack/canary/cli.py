"""`agent-loop canary start|status|pause|resume|abort`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ci.stack import images, project
from ci.stack.canary import controller, gate, state
from ci.stack.canary.plan import Plan, parse_steps
from ci.stack.canary.state import State, Status
from ci.stack.canary.traffic import ComposeWorld
from ci.stack.errors import StackError, UsageError
from ci.stack.reporting import reported, say

app = typer.Typer(no_args_is_help=True, help="Release a variant by steps, decided by numbers.")


@app.command()
@reported
def start(
    image: Annotated[str, typer.Option(help="the image to release, by digest: name@sha256:…")],
    variant: Annotated[str, typer.Option(help="its name in sessions and metrics")] = "canary",
    steps: Annotated[str, typer.Option(help="percent of new sessions, rising to 100")] = "10,25,50,100",
    samples: Annotated[int, typer.Option(help="ended runs that a step needs")] = Plan.samples,
    min_seconds: Annotated[float, typer.Option(help="shortest duration of a step")] = Plan.min_seconds,
    max_seconds: Annotated[float, typer.Option(help="longest; then it is inconclusive")] = Plan.max_seconds,
    poll: Annotated[float, typer.Option(help="seconds between two looks at Prometheus")] = 15.0,
    golden: Annotated[str, typer.Option(help="golden prompts for the gate before traffic")] = "",
) -> None:
    """Release an image: test it, send it more and more sessions, promote it or roll it back.

    Exit status: 0 promoted, 1 rolled back or aborted. Interrupted, it goes on with 'canary resume'.
    """
    stack = serving()
    found = state.load(stack.state)
    if found is not None and not found.status.final:
        raise UsageError(
            f"A release of '{found.variant}' is {found.status}. 'canary resume' or 'canary abort' it first."
        )
    plan = Plan(parse_steps(steps), samples, min_seconds, max_seconds)
    previous = project.read_env(stack.images_env).get(images.RUNTIME.variable, "")
    if "@sha256:" not in image or images.digest(image) is None:
        raise UsageError(f"No image '{image}' by digest in the engine. Build it: agent-loop call build-runtime …")
    state.save(stack.state, State(variant, image, previous, plan))
    carry(stack, poll, golden)


@app.command()
@reported
def resume(poll: float = 15.0, golden: str = "") -> None:
    """Go on with a release that was interrupted or paused."""
    stack = serving()
    found = current(stack)
    if found.status is Status.PAUSED:
        state.save(stack.state, found.noted(time.time(), "resumed", status=Status.RUNNING))
    carry(stack, poll, golden)


@app.command()
@reported
def pause() -> None:
    """Keep the traffic as it is and decide nothing until 'resume'."""
    stack = serving()
    found = current(stack)
    if found.status is not Status.RUNNING:
        raise UsageError(f"The release is {found.status}; only a running one can be paused.")
    state.save(stack.state, found.noted(time.time(), "paused by a person", status=Status.PAUSED))


@app.command()
@reported
def abort() -> None:
    """Roll the release back now."""
    stack = serving()
    found = current(stack)
    reason = "aborted by a person"
    state.save(stack.state, found.noted(time.time(), reason, status=Status.ROLLING_BACK, reason=reason))
    carry(stack, 1.0, "")


@app.command()
@reported
def status() -> None:
    """Where the last release stands, and what happened."""
    found = state.load(project.state_folder())
    if found is None:
        raise UsageError("There was no release yet. 'agent-loop canary start --image …' begins one.")
    print(f"{found.variant}  {found.status}  {found.percent} %  {found.image}")
    for event in found.history:
        print(f"  {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(event.at))}  {event.what}")


def serving() -> project.Project:
    """The production stack that runs. Raises UsageError for any other: only there a proxy splits traffic."""
    stack = project.remembered(project.state_folder())
    if stack.mode != "prod":
        raise UsageError("A canary needs the production stack, whose proxy splits traffic. 'agent-loop up prod' first.")
    return stack


def current(stack: project.Project) -> State:
    """The release that is under way. Raises UsageError when none is."""
    found = state.load(stack.state)
    if found is None or found.status.final:
        raise UsageError("No release is under way. 'agent-loop canary start --image …' begins one.")
    return found


def carry(stack: project.Project, poll: float, golden: str) -> None:
    """Run the controller to the release's end and set the exit status by it."""
    first = current(stack)

    def load() -> State:
        found = state.load(stack.state)
        if found is None:
            raise StackError(f"{state.path(stack.state)} is gone. Restore it, or start the release again.")
        return found

    world = ComposeWorld(stack, gate.judge(golden), first.variant)
    end = controller.run(
        load, lambda s: state.save(stack.state, s), world, now=time.time, sleep=time.sleep, poll=poll, say=say
    )
    say(f"{end.variant} is {end.status}" + (f": {end.reason}" if end.reason else ""))
    if end.status is not Status.PROMOTED:
        raise typer.Exit(1)
