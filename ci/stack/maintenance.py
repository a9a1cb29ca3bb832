"""What a person does to a stack that runs: switch models, upgrade and go back, clean up."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.stack import backups, images, models, project
from ci.stack.errors import StackError, StartFailed, UsageError
from ci.stack.project import Project
from ci.stack.up import Context, build_images, load_proxy, make_secrets, proxy_files, start

CACHE_KEPT = "10GB"
"""Build cache that `clean` leaves, newest first."""
KEPT = "What ran before the last upgrade."


def use(stack: Project, model: str, say: Callable[[str], None]) -> None:
    """Serve another model: pull it, remember it, and let the service restart with it. The old one stays on disk."""
    models.pull(stack, model)
    project.remember_model(stack.state, model)
    if stack.compose("up", "--detach", "--wait", "--no-deps", "agent").returncode != 0:
        raise StartFailed(f"The service did not become healthy with '{model}'. 'agent-loop logs agent' shows why.")
    say(f"{model} is served.")


def back_up(stack: Project, context: Context) -> None:
    """Back up the service's data. Raises StackError when that fails."""
    if backups.beside(stack, ["create", "--what", "service"], context):
        raise StackError("The backup before the upgrade failed, see above; nothing was changed.")


def restart(stack: Project, context: Context) -> Project:
    """Every container as images, settings and files are now, the proxy's among them."""
    for step in (proxy_files, start, load_proxy):
        stack = step(stack, context)
    return stack


@dataclass(frozen=True)
class Parts:
    """The parts of an upgrade that touch containers, so that the order of steps is tested without them."""

    backup: Callable[[Project, Context], None] = back_up
    start: Callable[[Project, Context], Project] = restart
    build: Callable[[Project, Context], Project] = build_images


def upgrade(stack: Project, context: Context, parts: Parts) -> None:
    """Back up, build from the working tree, restart; when the new images do not become healthy, go back.

    The store's migrations run as the service starts. Raises StartFailed after having gone back.
    """
    before = project.read_env(stack.images_env)
    if not before:
        raise UsageError("Nothing is up yet. 'agent-loop up' starts the stack.")
    make_secrets(stack, context)
    parts.backup(stack, context)
    older = project.read_env(previous(stack))
    project.write_env(previous(stack), before, KEPT)  # before the build, which may be killed
    parts.build(stack, context)
    if project.read_env(stack.images_env) == before:
        project.write_env(previous(stack), older, KEPT)  # an upgrade to the same takes no way back
        parts.start(stack, context)
        context.say("The images are what ran already; settings and files are as they are here.")
        return
    try:
        parts.start(stack, context)
    except StartFailed as error:
        context.say("The new images did not become healthy; going back.")
        rollback(stack, context, parts)
        raise StartFailed(f"Went back to the previous images. {error}") from error
    context.say("Upgraded. 'agent-loop rollback' goes back.")


def rollback(stack: Project, context: Context, parts: Parts) -> None:
    """Start the images that ran before the last upgrade. Raises UsageError when there was none."""
    before = project.read_env(previous(stack))
    if not before:
        raise UsageError("There is nothing to go back to: no upgrade was made here.")
    named = [reference for name, reference in before.items() if name.startswith("AGENT_LOOP_IMAGE_")]
    missing = [reference for reference in named if reference and images.digest(reference) is None]
    if missing:
        raise StackError(f"{missing[0]} is no longer in the engine. Check out its commit and 'agent-loop up'.")
    project.write_env(stack.images_env, before, "Written by 'agent-loop rollback': what runs, by digest.")
    parts.start(stack, context)
    context.say("The previous images run again.")


def job(stack: Project, words: Sequence[str]) -> int:
    """Run the trainer's words in a container of the training stack, with the card where there is one."""
    if not project.was_started(stack):
        raise UsageError("The training stack was not started here. 'agent-loop up train' builds its image first.")
    service = "trainer-gpu" if stack.gpu else "trainer"
    mounts, inside = data_mounted(words)
    return stack.compose("--profile", "*", "run", "--rm", "--no-deps", *mounts, service, *inside).returncode


def data_mounted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The mount that brings a file of this machine named by `--data` into the container, and the words seen there."""
    inside = list(words)
    for at, word in enumerate(inside[:-1]):
        path = Path(inside[at + 1])
        if word == "--data" and path.exists():
            # Not below /data, which is mounted read-only: the engine could not make the place for another mount there.
            inside[at + 1] = f"/input/{path.name}"
            return ["--volume", f"{path.absolute()}:/input/{path.name}:ro"], inside
    return [], inside


def previous(stack: Project) -> Path:
    """The file that names the images before the last upgrade."""
    return stack.state / "images.previous.env"


def clean(stack: Project, say: Callable[[str], None]) -> None:
    """Remove images of ours that neither run nor are needed to go back, and all but the newest build cache."""
    kept = {*project.read_env(stack.images_env).values(), *project.read_env(previous(stack)).values()}
    digests = {reference.partition("@")[2] for reference in kept}
    form = "{{.ID}} {{.Repository}}:{{.Tag}}"
    listed = subprocess.run(
        ["docker", "image", "ls", "--no-trunc", "--filter", "reference=agent-loop/*", "--format", form],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in listed.stdout.splitlines():
        identity, _, name = line.partition(" ")
        if identity in digests:
            continue
        target = identity if name.endswith(":<none>") else name
        removed = subprocess.run(["docker", "image", "rm", target], capture_output=True, text=True, check=False)
        say(f"{'Removed' if removed.returncode == 0 else 'In use, kept'}: {name}")
    pruned = subprocess.run(
        ["docker", "buildx", "prune", "--force", "--keep-storage", CACHE_KEPT],
        capture_output=True,
        text=True,
        check=False,
    )
    total = [line for line in pruned.stdout.splitlines() if line.startswith("Total")]
    say(f"Build cache: {total[-1].lower() if total else 'nothing to remove'}")
