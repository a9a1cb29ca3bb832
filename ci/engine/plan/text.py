"""A plan as a tree of words. Pure: a graph in, text out.

    build-runtime: Container
    ├── from docker.io/library/python:3.13-slim-trixie@sha256:…
    ├── with-directory /app/.venv
    │   └── source: /app/.venv of Container #1
    │       ├── from …
    └── with-entrypoint python -m service

A chain that several steps use is drawn once, under a number, and named by it afterwards.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ci.engine.module.names import kebab

from .graph import Asked, PlanGraph, Ref, Step
from .planner import Planned

MAIN_ARGUMENTS = ("address", "path", "args", "name", "key", "uri", "value", "port", "cmd", "contents")
"""Arguments that are told without their names: the field says what they are."""

SELECTORS = {"directory", "file", "rootfs"}
LONG = 160


@dataclass(frozen=True)
class Node:
    """A line of the tree, and what hangs beneath it."""

    label: str
    children: tuple[Node, ...] = ()


@dataclass
class _Drawing:
    plan: PlanGraph
    drawn: dict[int, int] = field(default_factory=dict[int, int])

    def chain(self, number: int) -> tuple[Node, ...]:
        """The steps of a chain, each with its inputs beneath."""
        steps = [s for s in self.plan.chain(number) if not (s.on is None and not s.args)]
        return tuple(Node(words(s), tuple(self.inputs(s))) for s in steps)

    def inputs(self, step: Step) -> Iterator[Node]:
        """The objects that a step is given."""
        for name, number in step.refs():
            yield self.named(f"{kebab(name)}:", number)

    def asked(self, question: Asked) -> Node:
        """What a question is about, and what was taken for its answer."""
        told = f", taken as {json.dumps(question.answer, ensure_ascii=False)}"
        return self.named(f"asks {kebab(question.field)} of", question.step, told)

    def named(self, before: str, number: int, after: str = "") -> Node:
        """An object between some words, with its chain where that is not drawn yet."""
        short, whole = self.place(number)
        if whole is None:
            return Node(f"{before} {short}{after}")
        target = self.plan.steps[whole]
        if whole in self.drawn:
            return Node(f"{before} {short}{target.type} #{self.drawn[whole]}, as above{after}")
        self.drawn[whole] = len(self.drawn) + 1
        return Node(f"{before} {short}{target.type} #{self.drawn[whole]}{after}", self.chain(whole))

    def place(self, number: int) -> tuple[str, int | None]:
        """How an object is named in few words, and the chain that must be drawn to understand it."""
        parts: list[str] = []
        step = self.plan.steps[number]
        while step.field in SELECTORS and step.on is not None and self.plan.steps[step.on].field != "host":
            parts.append(str(step.args.get("path", "/")))
            step = self.plan.steps[step.on]
        path = "/".join([parts[-1].rstrip("/"), *reversed(parts[:-1])]) if parts else ""
        on = self.plan.steps[step.on] if step.on is not None else None
        prefix = f"{path} of " if path else ""
        if on is not None and on.field == "host":
            return f"{prefix}host {' '.join(words(step).split(' ')[1:])}", None
        if step.field in ("cacheVolume", "secret", "setSecret"):
            return prefix + words(step), None
        if step.on is None and not step.args:
            return f"{prefix}an empty {step.type.lower()}", None
        return prefix, step.number


def words(step: Step) -> str:
    """One step in the words of the command line."""
    given = [(name, value) for name, value in step.args.items() if not _holds_objects(value)]
    main = next((name for name in MAIN_ARGUMENTS if any(n == name for n, _ in given)), None)
    parts = [kebab(step.field)]
    if main is not None:
        parts.append(_value(step.args[main], bare=True))
    if main in ("name", "path") and "value" in step.args:
        parts[-1] += f"={_value(step.args['value'], bare=True)}"
    for name, value in given:
        if name != main and not (name == "value" and main in ("name", "path")):
            parts.append(f"{kebab(name)}={_value(value)}")
    return " ".join(parts)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, Ref) or (isinstance(value, list) and any(isinstance(v, Ref) for v in value))


def _value(value: Any, bare: bool = False) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = value if bare and "\n" not in value else json.dumps(value, ensure_ascii=False)
        case list() if bare:
            text = shlex.join(str(v) for v in value)
        case list():
            text = ",".join(str(v) for v in value)
        case _:
            text = str(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= LONG else f"{text[:LONG]}… ({len(text)} characters)"


def tree(planned: Planned) -> str:
    """A function's plan as text: what it makes, then what it asks on the way."""
    drawing = _Drawing(planned.graph)
    lines: list[str] = []
    for name, number in planned.graph.results.items():
        lines.append(f"{name}: {planned.graph.steps[number].type}")
        lines += _lines(drawing.chain(number), "")
    if not lines:
        lines.append(f"{planned.function}: {planned.returns}" + ("" if planned.asked else ", nothing is built"))
    lines += _lines([drawing.asked(question) for question in planned.asked], "")
    return "\n".join(lines) + "\n"


def _lines(nodes: Sequence[Node], indent: str) -> Iterator[str]:
    for i, node in enumerate(nodes):
        last = i == len(nodes) - 1
        yield f"{indent}{'└── ' if last else '├── '}{node.label}"
        yield from _lines(node.children, indent + ("    " if last else "│   "))
