"""Before planning: models that Ollama keeps in memory may leave by choice, so that the plan has what they held.

    offer(client, asked=True, ask=None, say=print)      # --unload: do it
    offer(client, asked=False, ask=confirm, say=print)  # on a terminal: ask; without one: say how

A model that answers somebody right now finishes that answer first; Ollama loads it again when it is next asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .cards import GIB
from .export.errors import DeployError
from .ollama import Loaded, Ollama

SECONDS = 60.0
"""How long a model may take to leave: as long as the answer that it is giving."""
POLL = 0.2
CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files that Docker and Podman leave in each container."""


def offer(
    client: Ollama, *, asked: bool, ask: Callable[[str], bool] | None, say: Callable[[str], None], named: bool = False
) -> bool:
    """Unload what Ollama holds if `asked`, or if `ask` says yes; returns whether something left.

    Unasked, only what lies on the card counts: memory of the machine is not what a plan is short of. Where no Ollama
    answers there is nothing to offer, which is said only if it was asked for. Raises DeployError where it was asked
    for and an Ollama may well hold the card out of reach: its address was `named`, or this is a container.
    """
    if not client.answers():
        if asked and (named or _in_container()):
            where = "this container" if _in_container() else "here"
            raise DeployError(
                f"--unload cannot reach Ollama from {where}, {client.url}. Leave it out and let the models go where "
                "Ollama runs ('ollama stop NAME', or 'agent-loop train --dry-run --unload' on that machine); or name "
                "an address that answers with --ollama."
            )
        if asked:
            say(f"Nothing to unload: no Ollama answers at {client.url} (--ollama names another).")
        return False
    held = [model for model in client.loaded() if asked or model.on_card]
    if not held:
        if asked:
            say(f"Nothing to unload: Ollama at {client.url} holds no model.")
        return False
    what = " and ".join(f"{model.name} ({model.size / GIB:.1f} GiB)" for model in held)
    if not asked:
        if ask is None:
            say(f"Ollama keeps {what} on the card. --unload lets it go before planning.")
            return False
        if not ask(f"Ollama keeps {what} on the card. Unload it and plan with that memory?"):
            return False
    for model in held:
        client.unload(model.name)
    _wait(client, held, say)
    return True


def _in_container() -> bool:
    """Whether 127.0.0.1 is a container's own."""
    return any(mark.exists() for mark in CONTAINER)


def _wait(client: Ollama, gone: Sequence[Loaded], say: Callable[[str], None]) -> None:
    """Until Ollama lists none of them: it answers an unload before the memory is free."""
    names = {model.name for model in gone}
    deadline = time.monotonic() + SECONDS
    while left := sorted(names & {model.name for model in client.loaded()}):
        if time.monotonic() > deadline:
            raise DeployError(
                f"Still in use after {SECONDS:.0f} s, {', '.join(left)} at {client.url}. Wait for its answers to end, "
                "or stop who asks."
            )
        time.sleep(POLL)
    say(f"Unloaded {', '.join(sorted(names))}.")
