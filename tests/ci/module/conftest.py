"""Plans of the module's own stages: the stages run, the embedded engine notes what they ask for, nothing is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import dagger
import pytest
from agent_loop_ci import checks, stages
from agent_loop_ci.labels import Release
from dagger import dag

from ci.engine.graph import Node
from ci.engine.session import Plan, Session

ROOT = Path(__file__).resolve().parents[3]

RELEASE = Release("0" * 40, "2026-01-02T03:04:05Z", "1.2.3")

READ = ["service", "trainer", "observability", "requirements"]
"""What the stages name of the repository; the whole of it would only take time to read."""

Make = Callable[[dagger.Directory], dagger.Container | dagger.Directory | dagger.File]

STAGES: dict[str, Make] = {
    "builder": lambda source: stages.builder(source, "service"),
    "runtime": lambda source: stages.runtime(source, RELEASE),
    "dev": lambda source: stages.dev(source, RELEASE),
    "ops": lambda source: stages.ops(source, RELEASE),
    "training": lambda source: stages.training(source, RELEASE),
    "test": lambda source: stages.test(source, RELEASE),
    "suite": lambda source: checks.suite(source, RELEASE),
    "lint": checks.linted,
    "smoke": lambda source: checks.smoked(source, RELEASE),
}
"""Every container the module makes from the repository."""

IMAGES = ("runtime", "dev", "ops", "training", "test")
"""Those that a person starts."""


@dataclass(frozen=True)
class Planned:
    """A container as it was asked for: the chain of fields, and those of everything it rests on."""

    node: Node

    def steps(self, field: str) -> list[Mapping[str, Any]]:
        """Arguments of every call of `field` in the container's own chain, first to last."""
        return [node.args for node in self.node.chain() if node.field == field]

    def last(self, field: str) -> Mapping[str, Any]:
        """Arguments of the last such call."""
        return self.steps(field)[-1]

    def variables(self) -> dict[str, str]:
        """The environment that the chain sets."""
        return {step["name"]: step["value"] for step in self.steps("withEnvVariable")}

    def labels(self) -> dict[str, str]:
        """The labels that the chain sets, without their common prefix."""
        found = {step["name"]: step["value"] for step in self.steps("withLabel")}
        return {name.removeprefix("org.opencontainers.image."): value for name, value in found.items()}

    def everything(self) -> list[Node]:
        """Every node that the container rests on, itself included."""
        found: dict[str, Node] = {}
        waiting = [self.node]
        while waiting:
            node = waiting.pop()
            if node.key in found:
                continue
            found[node.key] = node
            waiting += [value for _, value in node.inputs()]
            if node.parent is not None:
                waiting.append(node.parent)
        return list(found.values())

    def host_files(self) -> set[str]:
        """What of the repository it reads: paths of files and folders."""
        return {
            "/".join(link.args["path"].strip("/") for link in node.chain()[2:]) or "."
            for node in self.everything()
            if [link.field for link in node.chain()[:2]] == ["host", "directory"]
            and node.field in ("file", "directory")
        } - {"."}

    def named(self, package: str) -> bool:
        """True if some step anywhere beneath has this word among its arguments."""
        return any(package in str(node.args.get("args", "")) for node in self.everything())


PlanAll = Callable[[Mapping[str, Make]], dict[str, Planned]]
Plans = Callable[[Make], Planned]


@pytest.fixture(scope="session")
def plan_all() -> Iterator[PlanAll]:
    """Plan what several functions make of the repository."""
    with Session(workdir=ROOT, plan=Plan()) as session:

        async def ask(makes: Mapping[str, Make]) -> dict[str, str]:
            async with dagger.connection():
                source = dag.host().directory(".", include=READ)
                return {name: str(await make(source).id()) for name, make in makes.items()}

        def plans(makes: Mapping[str, Make]) -> dict[str, Planned]:
            with pytest.MonkeyPatch.context() as environment:  # other tests must not take this session for theirs
                for name, value in session.environment().items():
                    environment.setenv(name, value)
                idents = anyio.run(ask, makes)
            found = {name: session.find(ident) for name, ident in idents.items()}
            return {name: Planned(node) for name, node in found.items() if node is not None}

        yield plans


@pytest.fixture(scope="session")
def plan(plan_all: PlanAll) -> Plans:
    """Plan what a function makes of the repository."""
    return lambda make: plan_all({"it": make})["it"]


@pytest.fixture(scope="session")
def planned(plan_all: PlanAll) -> Mapping[str, Planned]:
    """The plan of every stage by name."""
    return plan_all(STAGES)
