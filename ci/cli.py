"""The command line `agent-loop`: one table of commands, each imported only when it is asked for.

`agent-loop --help` imports nothing but this file, so it answers at once; a command's own help comes from its part.
A part's command is a Typer application (named here once for each of its flat commands, or once as a group), or a
plain function from arguments to exit status where the part parses its own words (`call`).
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """A name of the table: where it lives (`module:attribute`), what it is for, and whether it groups others."""

    name: str
    target: str
    help: str
    group: bool = False
    """True: the target is the command (its own subcommands follow). False: the target holds it under this name."""


PIPELINES = "Pipelines (no Dagger engine needed)"
STACK = "Stack"
SERVICE = "Service"
TRAINER = "Trainer"
WATCHING = "Observability"
PROJECT = "This repository"

COMMANDS: dict[str, list[Command]] = {
    PIPELINES: [
        Command("call", "ci.engine.call:main", "Call a function of the Dagger module, as `dagger call` does", True),
        Command("functions", "ci.engine.call:functions", "List the module's functions", True),
        Command("check", "ci.engine.call:check", "Run the module's checks", True),
        Command("plan", "ci.engine.plan:show", "Show what a function would build, without building", True),
        Command("policy", "ci.engine.plan:check", "Check what every function would build against the policies", True),
        Command("dockerfile", "ci.engine.plan:eject", "Write what a function would build as a plain Dockerfile", True),
        Command("session", "ci.engine.cli:app", "Open a Dagger session on BuildKit until standard input closes"),
        Command("run", "ci.engine.cli:app", "Run a program in such a session, as `dagger run` does"),
        Command("bases", "ci.engine.bases.cli:main", "Make the base images from the distribution's own packages", True),
    ],
    STACK: [
        Command("setup", "ci.stack.cli:app", "Set up what is missing here: container engine, base images"),
        Command("up", "ci.stack.cli:app", "Build, start and wait for the stack [dev|prod|train]"),
        Command("down", "ci.stack.cli:app", "Stop the stack and keep its data"),
        Command("ps", "ci.stack.cli:app", "List the stack's containers"),
        Command("logs", "ci.stack.cli:app", "Show the stack's logs, merged"),
        Command("init", "ci.stack.cli:app", "Pull the model with progress"),
        Command("model", "ci.stack.cli:app", "Serve another model"),
        Command("backup", "ci.stack.cli:app", "Create, list, verify and restore backups"),
        Command("upgrade", "ci.stack.cli:app", "Take the working tree into service, with a backup and a way back"),
        Command("rollback", "ci.stack.cli:app", "Start what ran before the last upgrade"),
        Command("job", "ci.stack.cli:app", "Run a command of the trainer in the training container"),
        Command("shell", "ci.stack.cli:app", "Open a shell in a service's container"),
        Command("stats", "ci.stack.cli:app", "Processor, memory and network of each container"),
        Command("clean", "ci.stack.cli:app", "Remove images that nothing needs, and old build cache"),
        Command("doctor", "ci.stack.cli:app", "Say what the stack needs here, with the fix for each"),
        Command("canary", "ci.stack.canary.cli:app", "Release a variant by steps, decided by numbers", True),
        Command("secrets", "ci.stack.cli:app", "List the stack's secrets, print one"),
    ],
    SERVICE: [
        Command("serve", "service.cli:app", "Run the agent server"),
        Command("chat", "service.cli:app", "Talk to the agent in the terminal"),
        Command("runs", "service.cli:app", "List, show and cancel runs"),
        Command("keys", "service.cli:app", "Create, list and revoke API keys"),
        Command("evals", "service.evals.cli:app", "Score an agent on golden prompts and tool calls", True),
    ],
    TRAINER: [
        Command("train", "trainer.cli:app", "Fine-tune a model with QLoRA, or only plan it (--dry-run)"),
        Command("train-gemma-2b", "trainer.cli:app", "The same with the preset gemma-2b"),
        Command("train-gemma-9b", "trainer.cli:app", "The same with the preset gemma-9b"),
        Command("train-custom", "trainer.cli:app", "The same with any model and data"),
        Command("train-dev", "trainer.cli:app", "Jupyter Lab and TensorBoard on this machine"),
        Command("train-status", "trainer.cli:app", "List the runs: state, step, loss, time left"),
        Command("train-monitor", "trainer.cli:app", "Watch the runs"),
        Command("train-logs", "trainer.cli:app", "A run's log, the newest by default"),
        Command("train-stop", "trainer.cli:app", "Save and end a run, wherever it runs"),
        Command("train-clean", "trainer.cli:app", "Delete a run's checkpoints, after a yes"),
        Command("data", "trainer.cli:app", "Check a data set: errors, lengths, what is supervised"),
        Command("export", "trainer.export.cli:app", "Merge, write GGUF, and prove it equal to what was trained"),
        Command("deploy", "trainer.deploy:app", "Serve an exported run, or go one step back"),
        Command("models", "trainer.registry:app", "List, register and promote versions of trained models"),
        Command("demo-model", "trainer.export.cli:app", "Make the demo model again"),
    ],
    WATCHING: [
        Command("drift", "observability.drift.cli:drift", "Find drift in what the service answers", True),
        Command("gpu-monitor", "observability.cli:app", "Sample the cards to a log and to Prometheus"),
        Command("alert-sink", "observability.cli:app", "Take alerts as a webhook and keep them"),
    ],
    PROJECT: [
        Command("lock", "ci.requirements:main", "Refresh the hash-locked requirement sets", True),
        Command("self-test", "ci.selftest:main", "Run the project's own checks [fast|lint|slow]", True),
    ],
}


def load(target: str) -> Any:
    """Import `module:attribute` and return the attribute."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def usage() -> str:
    """The overview that `agent-loop --help` prints."""
    width = max(len(c.name) for group in COMMANDS.values() for c in group)
    lines = ["Usage: agent-loop COMMAND [ARGS]...", ""]
    for title, group in COMMANDS.items():
        lines += [f"{title}:", *(f"  {c.name:<{width}}  {c.help}" for c in group), ""]
    return "\n".join([*lines, "'agent-loop COMMAND --help' says more of one."])


def find(name: str) -> Command | None:
    """The command of this name, or None."""
    return next((c for group in COMMANDS.values() for c in group if c.name == name), None)


def invoke(command: Command, argv: Sequence[str]) -> int:
    """Import the command's part and run it; return its exit status."""
    target: Callable[..., Any] = load(command.target)
    if not hasattr(target, "registered_commands"):  # a plain function from arguments to exit status
        return int(target(list(argv)) or 0)
    words = list(argv) if command.group else [command.name, *argv]
    name = f"agent-loop {command.name}" if command.group else "agent-loop"
    return int(target(words, prog_name=name, standalone_mode=True) or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line. Exit status: the command's own; 2 for words that are no command.

    A reader that goes away (`agent-loop … | head`) ends it without a word, with the status that a shell gives SIGPIPE.
    """
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of the output goes nowhere
        return 128 + signal.SIGPIPE


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("agent-loop"))
        return 0
    if words[0].startswith("-"):  # `-s call …`: the flags that `dagger` takes before its command
        return int(load("ci.engine.call.cli:program")(words))
    command = find(words[0])
    if command is None:
        import difflib

        names = [c.name for group in COMMANDS.values() for c in group]
        near = difflib.get_close_matches(words[0], names, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        print(f"agent-loop: no command '{words[0]}'.{hint} 'agent-loop --help' lists them.", file=sys.stderr)
        return 2
    return invoke(command, words[1:])


if __name__ == "__main__":
    sys.exit(main())
