"""A container of a plan as its policies see it: its own steps and the configuration they add up to. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .graph import PlanGraph, Step

INSTALLERS = {
    "apt": ("/var/cache/apt", "/var/lib/apt/lists"),
    "apk": ("/var/cache/apk", "/etc/apk/cache"),
    "pip": ("/root/.cache/pip",),
    "uv": ("/root/.cache/uv",),
    "npm": ("/root/.npm",),
}
"""Package managers, and the folders that each fills with what an image has no use for."""

WITHOUT_CACHE = {"pip": ("--no-cache-dir",), "uv": ("--no-cache", "-n"), "apk": ("--no-cache",), "npm": (), "apt": ()}
VARIABLES = {"uv": "UV_CACHE_DIR", "pip": "PIP_CACHE_DIR", "npm": "npm_config_cache"}


@dataclass(frozen=True)
class Install:
    """A step that installs packages: with what, and its whole text."""

    step: Step
    manager: str
    text: str


@dataclass(frozen=True)
class Image:
    """One container of a plan, under the name of the function that makes it."""

    function: str
    name: str
    plan: PlanGraph
    number: int
    steps: tuple[Step, ...] = field(default=())

    @classmethod
    def of(cls, function: str, name: str, plan: PlanGraph, number: int) -> Image:
        return cls(function, name, plan, number, tuple(plan.chain(number)))

    @cached_property
    def since_base(self) -> tuple[Step, ...]:
        """The steps after the last base image: what this chain adds to it."""
        last = max((i for i, s in enumerate(self.steps) if s.field in ("from", "withRootfs", "import")), default=-1)
        return self.steps[last + 1 :]

    def _last(self, set_by: str, dropped_by: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = None
        for step in self.since_base:
            if step.field == set_by:
                found = step.args
            elif step.field == dropped_by:
                found = None
        return found

    @cached_property
    def user(self) -> str:
        """The user it runs as; empty where the chain says nothing."""
        return str((self._last("withUser", "withoutUser") or {}).get("name", ""))

    @cached_property
    def entrypoint(self) -> list[str] | None:
        found = self._last("withEntrypoint", "withoutEntrypoint")
        return list(found["args"]) if found else None

    @cached_property
    def healthcheck(self) -> Mapping[str, Any] | None:
        return self._last("withDockerHealthcheck", "withoutDockerHealthcheck")

    @cached_property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for step in self.since_base:
            if step.field == "withLabel":
                found[str(step.args["name"])] = str(step.args["value"])
            elif step.field == "withoutLabel":
                found.pop(str(step.args["name"]), None)
        return found

    def execs(self) -> Iterator[Step]:
        """The commands that this image's own chain runs."""
        return (s for s in self.since_base if s.field == "withExec")

    def installs(self) -> Iterator[Install]:
        """The steps of this chain that install packages."""
        for step in self.execs():
            manager = manager_of(step)
            if manager:
                yield Install(step, manager, command_text(step))

    def mounted_at(self, number: int) -> set[str]:
        """Paths that are mounts when a step of this chain runs."""
        found: set[str] = set()
        for step in self.plan.chain(number):
            if step.field.startswith("withMounted"):
                found.add(posixpath.normpath(str(step.args["path"])))
            elif step.field in ("withoutMount",):
                found.discard(posixpath.normpath(str(step.args["path"])))
        return found

    def variable_at(self, number: int, name: str) -> str:
        """An environment variable's value when a step runs; empty where it is not set."""
        value = ""
        for step in self.plan.chain(number):
            if step.field == "withEnvVariable" and step.args.get("name") == name:
                value = str(step.args.get("value", ""))
        return value

    def leftovers(self, install: Install) -> list[str]:
        """Cache folders that an install fills and leaves in the image."""
        if any(flag in install.text.split() for flag in WITHOUT_CACHE[install.manager]):
            return []
        mounted = self.mounted_at(install.step.number)
        variable = VARIABLES.get(install.manager)
        moved = self.variable_at(install.step.number, variable) if variable else ""
        folders = [moved] if moved else list(INSTALLERS[install.manager])
        return [f for f in folders if not covered(f, mounted) and not _removed(f, install.text)]


def covered(path: str, mounts: set[str]) -> bool:
    """Whether a path lies on one of these mounts."""
    path = posixpath.normpath(path)
    return any(path == m or path.startswith(m.rstrip("/") + "/") for m in mounts)


def _removed(path: str, text: str) -> bool:
    return any("rm -" in line and path in line for line in text.replace("&&", "\n").replace(";", "\n").splitlines())


def command_text(step: Step) -> str:
    """A step's command, with the script of a shell as it stands."""
    args: Sequence[Any] = step.args.get("args") or ()
    return " ".join(str(a) for a in args)


_INSTALLING = {
    "apt": ("apt-get install", "apt install"),
    "apk": ("apk add",),
    "pip": ("pip install", "pip3 install", "pip wheel"),
    "uv": ("uv sync", "uv pip install", "uv pip sync", "uv add", "uv tool install"),
    "npm": ("npm ci", "npm install"),
}


def manager_of(step: Step) -> str:
    """The package manager that a command installs with; empty for any other command."""
    text = " ".join(word for word in command_text(step).split() if not word.startswith("-"))
    for manager in ("uv", "apt", "apk", "npm", "pip"):
        if any(phrase in text for phrase in _INSTALLING[manager]):
            return manager
    return ""
