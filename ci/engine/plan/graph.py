"""A pipeline's graph as a plan: numbered steps in the order they follow from each other, secrets left out. Pure.

    plan = PlanGraph.of({"build-runtime": node})
    plan.steps[3]      # Step(number=3, type="Container", field="withExec", args={"args": […]}, on=2)

A step's arguments hold only what the pipeline gave; an object among them is a `Ref` to the step that made it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ci.engine.graph import ROOT, Hidden, Node

MASK = "***"


@dataclass(frozen=True)
class Ref:
    """An argument that is an object: the step that makes it."""

    number: int


@dataclass(frozen=True)
class Step:
    """One field with what it was given, on the step before it."""

    number: int
    type: str
    field: str
    args: Mapping[str, Any]
    on: int | None

    def refs(self) -> Iterator[tuple[str, int]]:
        """Objects among the arguments: (argument, step)."""
        for name, value in self.args.items():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Ref):
                    yield name, item.number


@dataclass(frozen=True)
class Asked:
    """A question that only a build could answer: of which step's object, and the placeholder that it got."""

    field: str
    step: int
    answer: Any


@dataclass
class PlanGraph:
    """All steps that some results rest on."""

    steps: list[Step] = field(default_factory=list[Step])
    results: dict[str, int] = field(default_factory=dict[str, int])
    root: Path | None = None
    """Host paths in here are told relative to it, so that a plan reads the same in every clone."""
    _numbers: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of(cls, results: Mapping[str, Node], root: Path | None = None) -> PlanGraph:
        """The plan of these results. The plaintext of every secret that is set is masked wherever it stands."""
        plan = cls(root=root)
        hidden = [p for p in _plaintexts(results.values()) if p]
        for name, node in results.items():
            plan.results[name] = plan._number(node, sorted(hidden, key=len, reverse=True))
        return plan

    def chain(self, number: int) -> list[Step]:
        """From the first field to this step."""
        found: list[Step] = []
        current: int | None = number
        while current is not None:
            found.append(self.steps[current])
            current = self.steps[current].on
        return found[::-1]

    def beneath(self, number: int) -> set[int]:
        """Every step that a step rests on, itself included."""
        seen, waiting = set[int](), [number]
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            step = self.steps[current]
            waiting += [n for _, n in step.refs()] + ([step.on] if step.on is not None else [])
        return seen

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON: results by name, steps with arguments, objects as `{"step": n}`."""

        def plain(value: Any) -> Any:
            if isinstance(value, Ref):
                return {"step": value.number}
            return [plain(v) for v in value] if isinstance(value, list) else value

        return {
            "results": dict(self.results),
            "steps": [
                {
                    "step": s.number,
                    "type": s.type,
                    "field": s.field,
                    **({"on": s.on} if s.on is not None else {}),
                    **({"args": {k: plain(v) for k, v in s.args.items()}} if s.args else {}),
                }
                for s in self.steps
            ],
        }

    def _number(self, node: Node, hidden: Sequence[str]) -> int:
        """The number of a node's step; steps it rests on come first."""
        for link in node.chain():
            if link.key in self._numbers:
                continue
            args = {
                name: self._argument(value, hidden)
                for name, value in link.args.items()
                if name in link.given or isinstance(value, Hidden)
            }
            if self.root is not None and link.parent is not None and link.parent.field == "host" and "path" in args:
                path = Path(os.path.normpath(self.root / str(args["path"])))
                args["path"] = os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)
            if link.index is not None:
                args["[index]"] = link.index
            on = self._numbers[link.parent.key] if link.parent not in (None, ROOT) else None
            self._numbers[link.key] = len(self.steps)
            self.steps.append(Step(len(self.steps), link.type, link.field, args, on))
        return self._numbers[node.key]

    def _argument(self, value: Any, hidden: Sequence[str]) -> Any:
        match value:
            case Node():
                return Ref(self._number(value, hidden))
            case Hidden():
                return MASK
            case str():
                return mask(value, hidden)
            case list() | tuple():
                return [self._argument(v, hidden) for v in value]
            case Mapping():
                return {str(k): self._argument(v, hidden) for k, v in value.items()}
            case _:
                return value


def mask(text: str, hidden: Sequence[str]) -> str:
    """A text with every plaintext in it replaced by `***`."""
    for plaintext in hidden:
        text = text.replace(plaintext, MASK)
    return text


def _plaintexts(nodes: Any) -> Iterator[str]:
    """What `setSecret` was given anywhere beneath."""
    seen, waiting = set[str](), list(nodes)
    while waiting:
        node: Node = waiting.pop()
        for link in node.chain():
            if link.key in seen:
                continue
            seen.add(link.key)
            for value in link.args.values():
                if isinstance(value, Hidden):
                    yield str(value)
            waiting += [inner for _, inner in link.inputs()]
