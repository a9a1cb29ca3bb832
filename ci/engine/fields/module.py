"""The fields of the session that a module's process speaks to: what it is asked to do, and what it answers.

The entry point asks `currentFunctionCall`; an empty parent name means "register your types", anything else names
a function with its arguments. It ends with `returnValue` or `returnError`. Types are described with builders that
only grow a chain (`typeDef`, `function`, `module`, `error`), which `ci.engine.module.registration` reads.

One session serves one call at a time: `Calls` holds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ci.engine import registry
from ci.engine.errors import FieldError
from ci.engine.graph import ROOT, Node, call
from ci.engine.registry import Args, Call
from ci.engine.session import Session


@dataclass
class FunctionCall:
    """A call as the module sees it, and its outcome."""

    parent_name: str = ""
    name: str = ""
    parent: str = "null"
    """JSON of the object that the function is called on."""
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    """JSON texts by the argument's name."""
    value: Any = None
    error: Node | None = None
    answered: bool = False


@dataclass
class Calls:
    """What a session's module is doing: the call that is under way, and where the module lies."""

    name: str
    source: Path
    current: FunctionCall | None = None


_ATTACHMENT = "module"


def serve_module(session: Session, name: str, source: Path) -> Calls:
    """Let a session answer as the session of this module. `source` is its Python project's folder."""
    session.attachments[_ATTACHMENT] = calls = Calls(name, source)
    return calls


NO_MODULE = "no current module: main client caller has no current module"


def _calls(ctx: Call, where: str = "") -> Calls:
    found = ctx.session.attachments.get(_ATTACHMENT)
    if found is None:
        raise FieldError(f"{where}{NO_MODULE}")
    return found


@registry.field("Query", "currentFunctionCall", memo=False)
def current_function_call(ctx: Call, parent: Any, args: Args) -> FunctionCall:
    current = _calls(ctx).current
    if current is None:
        raise FieldError("no current function call")
    return current


@registry.field("FunctionCall", "parentName", memo=False)
def parent_name(ctx: Call, parent: FunctionCall, args: Args) -> str:
    return parent.parent_name


@registry.field("FunctionCall", "name", memo=False)
def name(ctx: Call, parent: FunctionCall, args: Args) -> str:
    return parent.name


@registry.field("FunctionCall", "parent", memo=False)
def parent_state(ctx: Call, parent: FunctionCall, args: Args) -> str:
    return parent.parent


@registry.field("FunctionCall", "inputArgs", memo=False)
def input_args(ctx: Call, parent: FunctionCall, args: Args) -> list[tuple[str, str]]:
    return sorted(parent.arguments.items())


@registry.field("FunctionCallArgValue", "name", memo=False)
def argument_name(ctx: Call, parent: tuple[str, str], args: Args) -> str:
    return parent[0]


@registry.field("FunctionCallArgValue", "value", memo=False)
def argument_value(ctx: Call, parent: tuple[str, str], args: Args) -> str:
    return parent[1]


@registry.field("FunctionCall", "returnValue", memo=False)
def return_value(ctx: Call, parent: FunctionCall, args: Args) -> None:
    try:
        parent.value = json.loads(args["value"])
    except ValueError as error:
        raise FieldError(f"returned value is no JSON: {error}") from None
    parent.answered = True


@registry.field("FunctionCall", "returnError", memo=False)
def return_error(ctx: Call, parent: FunctionCall, args: Args) -> None:
    parent.error = ctx.node.args["error"]
    parent.answered = True


@registry.field("Query", "currentModule", memo=False)
def current_module(ctx: Call, parent: Any, args: Args) -> Calls:
    return _calls(ctx, "failed to compute cache key for Query.currentModule: failed to get current module: ")


@registry.field("CurrentModule", "name")
def module_name(ctx: Call, parent: Calls, args: Args) -> str:
    return parent.name


@registry.field("CurrentModule", "source")
def module_source(ctx: Call, parent: Calls, args: Args) -> Node:
    host = call(ROOT, "Host", "host", {})
    arguments = {"path": str(parent.source), "exclude": ["**/__pycache__", ".venv", "sdk"]}
    schema = ctx.session.schema.field("Host", "directory")
    assert schema is not None
    declared = {a.name: a.default for a in schema.args.values()} | arguments
    return call(host, "Directory", "directory", declared, frozenset(arguments))


class Described:
    """The value of a builder: nothing but the chain that made it."""


_BUILDERS = {
    "Query": ("module", "typeDef", "function", "error", "sourceMap"),
    "Module": ("withDescription", "withObject", "withInterface", "withEnum"),
    "TypeDef": (
        "withKind",
        "withOptional",
        "withListOf",
        "withObject",
        "withInterface",
        "withScalar",
        "withEnum",
        "withEnumMember",
        "withEnumValue",
        "withField",
        "withFunction",
        "withConstructor",
    ),
    "Function": (
        "withDescription",
        "withArg",
        "withCachePolicy",
        "withCheck",
        "withDeprecated",
        "withGenerator",
        "withSourceMap",
        "withUp",
    ),
    "Error": ("withValue",),
}


def _describe(ctx: Call, parent: Any, args: Args) -> Described:
    return Described()


for _type, _fields in _BUILDERS.items():
    for _field in _fields:
        registry.field(_type, _field)(_describe)
