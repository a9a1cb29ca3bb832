"""What an image or a step is set to, as Dockerfile instructions: environment, user, folder, ports, labels."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ci.engine.values import Container, Pairs, Step, put

from . import execs
from .dockerfile import quote, words


@dataclass(frozen=True)
class State:
    """What a stage's configuration holds at its end."""

    env: Pairs = ()
    user: str = ""
    workdir: str = ""


def settings(step: Step, state: State) -> tuple[list[str], State]:
    """Instructions that bring a stage's configuration to what a step needs, and what it is then."""
    lines: list[str] = []
    env = state.env
    known = dict(env)
    for name, value in step.env:
        if known.get(name) != value and execs.in_dockerfile(name, value):
            lines.append(f"ENV {name}={quote(value)}")
            env = put(env, name, value)
    user = step.user or "0:0"
    if user != (state.user or "0:0"):
        lines.append(f"USER {quote(user)}")
    workdir = step.workdir or "/"
    if workdir != (state.workdir or "/"):
        lines.append(f"WORKDIR {quote(workdir)}")
    return lines, State(env, "" if user == "0:0" else user, "" if workdir == "/" else workdir)


def configuration(container: Container, state: State) -> list[str]:
    """Instructions that give an image its configuration. What they cannot take away, `image.py` does."""
    lines: list[str] = []
    known = dict(state.env)
    for name, value in container.env:
        if known.get(name) != value and execs.in_dockerfile(name, value):
            lines.append(f"ENV {name}={quote(value)}")
    if container.user != state.user:
        lines.append(f"USER {quote(container.user or '0:0')}")
    if container.workdir != state.workdir and container.workdir:
        lines.append(f"WORKDIR {quote(container.workdir)}")
    lines += [f"EXPOSE {p.port}/{p.protocol.lower()}" for p in container.ports if 0 < p.port < 65536]
    if container.healthcheck is not None:
        check = container.healthcheck
        times = [
            f"--{flag}={value} "
            for flag, value in (
                ("interval", check.interval),
                ("timeout", check.timeout),
                ("start-period", check.start_period),
            )
            if value != "0s"
        ]
        retries = f"--retries={check.retries} " if check.retries else ""
        command = check.args[0] if check.shell and len(check.args) == 1 else words(check.args)
        lines.append(f"HEALTHCHECK {''.join(times)}{retries}CMD {command}")
    lines += [f"LABEL {quote(n)}={quote(v)}" for n, v in container.labels if n and not re.search(r"[\r\n]", v)]
    lines.append(f"ENTRYPOINT {words(container.entrypoint)}")
    lines.append(f"CMD {words(container.default_args)}")
    return lines
