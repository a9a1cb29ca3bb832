"""What a function would build, worked out without building it: the function runs, its session notes.

    with planning(source, show) as planner:
        planned = planner.plan(line)           # a parsed command line
        planned.graph.to_json()

The module's own code runs in its own process as in a real call. Objects it makes are nodes of a graph. What it asks
for that only a build could tell (an exit code, a file's text) is answered with a placeholder of the field's type and
noted as a leaf; secrets are never read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ci.engine.build.dockerfile import Rendered, render
from ci.engine.call.args import CallLine, Options, Step
from ci.engine.call.core import TypeCatalog
from ci.engine.call.invoke import Invocation, Located
from ci.engine.call.load import Loader
from ci.engine.call.values import Address
from ci.engine.graph import Node
from ci.engine.module.api import Field
from ci.engine.module.errors import PROGRAM, PlainError
from ci.engine.module.names import camel, kebab
from ci.engine.module.session import OpenModule, opened
from ci.engine.module.source import ModuleSource
from ci.engine.module.types import LIST, OBJECT, Argument, Function, TypeRef
from ci.engine.session import Plan
from ci.engine.values import Container, Directory

from .graph import Asked, PlanGraph


@dataclass(frozen=True)
class Planned:
    """A function's plan: its graph (results by name), and what was asked on the way."""

    function: str
    returns: str
    graph: PlanGraph
    asked: tuple[Asked, ...]
    nodes: Mapping[str, Node]

    def to_json(self, module: str) -> dict[str, Any]:
        """The plan as JSON, the same for the same sources."""
        return {
            "module": module,
            "function": self.function,
            "returns": self.returns,
            **self.graph.to_json(),
            "asked": [{"field": a.field, "step": a.step, "answer": a.answer} for a in self.asked],
        }

    def notes(self) -> list[str]:
        """The questions in words."""
        return [
            f"asks {kebab(a.field)} of {self.graph.steps[a.step].type}, step {a.step}: taken as {json.dumps(a.answer)}"
            for a in self.asked
        ]


class Planner:
    """Plans functions of one open module."""

    def __init__(self, source: ModuleSource, catalog: TypeCatalog, module: OpenModule, plan: Plan):
        self._module = module
        self._plan = plan
        self._root = source.context
        self._catalog = catalog
        self._loader = Loader(module.api, source)
        self._invocation = Invocation(source.name, catalog, module.api, module.functions, self._loader, evaluate=False)

    def plan(self, line: CallLine) -> Planned:
        """The plan of a call. Raises CallError where the function raises or an argument does not load."""
        before = len(self._plan.leaves)
        result = self._invocation.run(line)
        words = " ".join(kebab(s.function.name) for s in line.steps)
        nodes = {name: self._node(found.ident) for name, found in _located(result, words)}
        leaves = [leaf for leaf in self._plan.leaves[before:] if leaf.node.parent is not None]
        rests = {f"asked {i}": leaf.node.parent for i, leaf in enumerate(leaves) if _of_interest(leaf.node)}
        graph = PlanGraph.of(nodes | {k: v for k, v in rests.items() if v is not None}, self._root)
        asked = tuple(
            Asked(leaves[int(key.split()[1])].node.field, number, _told(leaves[int(key.split()[1])].answer))
            for key, number in graph.results.items()
            if key in rests
        )
        for key in rests:
            del graph.results[key]
        returns = line.last.function.returns
        return Planned(words, _type_words(returns), graph, asked, nodes)

    def of(self, function: Function) -> Planned:
        """The plan of a function of the main object, with placeholders for what a call would have to give."""
        main = self._catalog.object(self._catalog.main)
        assert main is not None
        command = f"{PROGRAM} call"
        constructor = main.constructor or Function("", TypeRef(OBJECT, main.name))
        first = Step(constructor, main, placeholders(constructor, self._catalog), command)
        step = Step(function, main, placeholders(function, self._catalog), f"{command} {kebab(function.name)}")
        return self.plan(CallLine(first, (step,), Options()))

    def render(self, node: Node) -> Rendered:
        """An object of a plan as a Dockerfile with its contexts. Raises EngineError for what that cannot say."""
        value = self._module.session.get(node)
        if not isinstance(value, Container | Directory):
            raise PlainError(f"A Dockerfile makes images and folders, not {node.type}. Choose a function of those.")
        return render(value, self._module.session)

    def _node(self, ident: str) -> Node:
        node = self._module.session.find(ident)
        assert node is not None, "an id that the session gave is known to it"
        return node


@contextlib.contextmanager
def planning(source: ModuleSource, catalog: TypeCatalog, show: Callable[[str], None]) -> Generator[Planner]:
    """Open a module for planning; its session builds nothing and its process ends with the block."""
    plan = Plan()
    with opened(source, show, plan=plan) as module:
        yield Planner(source, catalog, module, plan)


def _of_interest(node: Node) -> bool:
    """Whether a question is about something built, not about the call itself or a secret."""
    return node.parent is not None and node.parent.type not in ("FunctionCall", "Secret", "Query", "Error")


def _told(answer: Any) -> Any:
    return answer if isinstance(answer, str | int | float | bool | list) or answer is None else str(answer)


def _located(value: Any, name: str) -> Iterator[tuple[str, Located]]:
    """Every core object in a result, by a name that says where it is."""
    match value:
        case Located():
            yield name, value
        case list():
            for i, member in enumerate(value):
                yield from _located(member, f"{name}[{i}]")
        case dict():
            for key, member in value.items():
                yield from _located(member, f"{name}.{key}")
        case _:
            pass


def _type_words(ref: TypeRef) -> str:
    if ref.kind == LIST and ref.element is not None:
        return f"[{_type_words(ref.element)}]"
    return ref.name or ref.kind.lower()


PLACEHOLDER_TEXT = "placeholder"


def placeholders(function: Function, catalog: TypeCatalog) -> dict[str, Any]:
    """A value of the right type for every argument that a call must give, so that any function can be planned."""
    return {a.name: _placeholder(a.type, a, catalog) for a in function.arguments if a.required}


def _placeholder(ref: TypeRef, argument: Argument, catalog: TypeCatalog) -> Any:
    match ref.kind:
        case "INTEGER":
            return 1
        case "FLOAT":
            return 1.0
        case "BOOLEAN":
            return False
        case "ENUM":
            return catalog.enum(ref.name).members[0]
        case "LIST":
            return []
        case "OBJECT":
            return Address(ref.name, argument.name, stand_in(ref.name, argument.name))
        case "SCALAR" if ref.name == "Platform":
            return "linux/amd64"
        case _:
            return PLACEHOLDER_TEXT


def stand_in(type_name: str, name: str) -> tuple[Field | str, ...]:
    """The chain that makes an object for a placeholder: nothing is read from the host for it."""
    text = json.dumps(f"placeholder-{name}")
    match type_name:
        case "Secret":
            return (Field("setSecret", {"name": text, "plaintext": json.dumps(f"secret-of-{camel(name)}")}),)
        case "File":
            made = Field("withNewFile", {"path": text, "contents": '""'})
            return ("directory", made, Field("file", {"path": text}))
        case "CacheVolume":
            return (Field("cacheVolume", {"key": text}),)
        case "Container":
            return ("container",)
        case _:
            return ("directory",)


def image_functions(catalog: TypeCatalog) -> list[Function]:
    """The module's functions whose result is made of core objects, by name: what there is to plan."""
    main = catalog.object(catalog.main)
    assert main is not None
    return [f for _, f in sorted(main.functions.items()) if not f.is_field and _built(f.returns, catalog, set())]


def _built(ref: TypeRef, catalog: TypeCatalog, seen: set[str]) -> bool:
    inner = ref.innermost
    if inner.kind != OBJECT or inner.name in seen:
        return False
    if not catalog.is_own(inner.name):
        return inner.name in ("Container", "Directory", "File")
    own = catalog.object(inner.name)
    fields = [f for f in own.functions.values() if f.is_field] if own else []
    return any(_built(f.returns, catalog, seen | {inner.name}) for f in fields)
