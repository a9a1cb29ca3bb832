"""The command line `agent-loop`: one table of commands, each imported only when it is asked for.

`agent-loop --help` imports nothing but this file, so it answers at once; a command's own help comes from its part.
A part's command is a Typer application (named here once for each of its flat commands, or once as a group), or a
plain function from arguments to exit status where the part parses its own words (`call`).
"""

from __future__ import annotations

import importlib
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
PROJECT = "This repository"

COMMANDS: dict[str, list[Command]] = {
    PIPELINES: [
        Command("call", "ci.engine.call:main", "Call a function of the Dagger module, as `dagger call` does", True),
        Command("functions", "ci.engine.call:functions", "List the module's functions", True),
        Command("check", "ci.engine.call:check", "Run the module's checks", True),
        Command("plan", "ci.engine.plan_cli:app", "Show what a function would build, without building"),
        Command("policy", "ci.engine.plan_cli:app", "Check what every function would build against the policies"),
        Command("dockerfile", "ci.engine.plan_cli:app", "Write what a function would build as a plain Dockerfile"),
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
        Command("shell", "ci.stack.cli:app", "Open a shell in a service's container"),
        Command("stats", "ci.stack.cli:app", "Processor, memory and network of each container"),
        Command("clean", "ci.stack.cli:app", "Remove images that nothing needs, and old build cache"),
        Command("doctor", "ci.stack.cli:app", "Say what the stack needs here, with the fix for each"),
        Command("canary", "ci.stack.canary.cli:app", "Release a variant by steps, decided by numbers", True),
        Command("secrets", "ci.stack.cli:app", "List the stack's secrets, print one"),
    ],
    SERVICE: [
        Command("serve", "service.cli:app", "Run the agent server"),
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
    """Run one command line. Exit status: the command's own; 2 for words that are no command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("agent-loop"))
        return 0
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
