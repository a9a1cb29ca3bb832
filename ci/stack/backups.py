"""`agent-loop backup` on a stack: the ops image's own command, beside the volumes that it reads and writes.

The serving stack holds `service`, the training stack `checkpoints`; a backup's id ends with which it is. A restore ends
first what has the database open that is put back (the service, or the tracking page), and starts it again after.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from ci.stack import images, networks, project
from ci.stack.errors import StackError, UsageError
from ci.stack.project import COMPOSE, Project
from ci.stack.up import Context

HOLDS = {"service": False, "checkpoints": True}
"""What is backed up to whether the training stack holds it."""

HELP = ("--help", "-h")


def kinds(words: Sequence[str]) -> list[str]:
    """What a backup command line speaks of: by `--what`, by the id it names, else everything."""
    for at, word in enumerate(words):
        what = word.removeprefix("--what=") if word.startswith("--what=") else None
        if word == "--what":
            what = words[at + 1] if at + 1 < len(words) else ""
        if what is not None and what != "all":
            if what not in HOLDS:
                raise UsageError(f"No such thing to back up, '{what}'. Use {', '.join(HOLDS)} or all.")
            return [what]
    named = [kind for kind in HOLDS for word in words[1:] if word.endswith(f"-{kind}")]
    return named or list(HOLDS)


def without_what(words: Sequence[str]) -> list[str]:
    """The same words without `--what` and its value."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word.startswith("--what="):
            skip = False
        elif word == "--what":
            skip = True
        else:
            kept.append(word)
    return kept


def run(state: Path, words: Sequence[str], context: Context) -> int:
    """Run a backup command on each stack that holds what it speaks of; the first status that is not 0."""
    if not words or any(word in HELP for word in words):
        from observability.backup.cli import backup

        return int(backup(list(words) or ["--help"], prog_name="agent-loop backup", standalone_mode=True) or 0)
    wanted = kinds(words)
    stacks = {kind: project.remembered(state, train=HOLDS[kind]) for kind in wanted}
    started = {kind: stack for kind, stack in stacks.items() if project.was_started(stack)}
    if not started:
        raise UsageError(f"No stack that holds {' or '.join(wanted)} was started here. 'agent-loop up' starts one.")
    for kind, stack in started.items():
        status = beside(stack, [words[0], *without_what(words[1:]), *(takes_what(words[0], kind))], context)
        if status:
            return status
    return 0


def takes_what(verb: str, kind: str) -> list[str]:
    """The option that keeps a command to one kind; `restore` knows it by the id."""
    return [] if verb == "restore" else ["--what", kind]


def beside(stack: Project, words: Sequence[str], context: Context) -> int:
    """Run the backup command in a container of its own on the stack's volumes; return its status."""
    recorded = project.read_env(stack.images_env)
    held = images.OPS.variable in recorded and images.digest(recorded[images.OPS.variable])
    if not held:  # never built here, or removed since
        recorded |= images.build((images.OPS,), context.export)
        project.write_env(stack.images_env, recorded, "Written by 'agent-loop': what runs, by digest.")
    more = [COMPOSE / "compose.backup.yaml"] if stack.mode == "dev" else []
    if words[0] == "restore" and "--yes" not in words:
        typer.confirm(f"Put back {' '.join(words[1:])}? What is there now is kept beside it.", abort=True)
        words = [*words, "--yes"]
    pauses = words[0] == "restore"
    owner = "tracking" if stack.mode == "train" else "agent"
    if pauses:
        context.say(f"Stopping {owner} while its data is put back.")
        stack.compose("stop", owner)
    try:
        return networks.launch(stack, "run", "--rm", "--no-deps", "backup", "backup", *words, more=more)
    finally:
        if pauses and stack.compose("up", "--detach", "--wait", "--no-deps", owner).returncode:
            logs = f"agent-loop logs {owner}{' --train' if stack.mode == 'train' else ''}"
            raise StackError(f"{owner} did not start after the restore. '{logs}' shows why.")
