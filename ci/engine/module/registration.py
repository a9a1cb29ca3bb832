"""From the chain of calls by which a module registers itself to plain types.

A module describes itself with the API's own builders, `module { withObject(object: …) { … } }`, and hands over the
resulting object. Such a chain is data in the session's graph; here it is folded, link by link, into `ModuleTypes`.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ci.engine.graph import Node

from .types import ENUM, INTERFACE, LIST, OBJECT, SCALAR, Argument, EnumType, Function, ModuleTypes, ObjectType, TypeRef


def links(node: Node) -> list[tuple[str, Mapping[str, Any]]]:
    """A chain from its root on, as (field, arguments)."""
    return [(link.field, link.args) for link in node.chain()]


def module_types(node: Node) -> ModuleTypes:
    """What the module behind this chain offers. Raises ValueError on a link that is not known."""
    types = ModuleTypes()
    for field, args in links(node):
        match field:
            case "module":
                pass
            case "withDescription":
                types = replace(types, description=_text(args, "description"))
            case "withObject" | "withInterface":
                obj = _definition(args["object" if field == "withObject" else "iface"])
                types = replace(types, objects={**types.objects, obj.ref.name: obj.as_object()})
            case "withEnum":
                enum = _definition(args["enum"])
                found = EnumType(enum.ref.name, enum.description, enum.members)
                types = replace(types, enums={**types.enums, found.name: found})
            case other:
                raise ValueError(f"module field {other}")
    return types


@dataclass(frozen=True)
class _Definition:
    """A type definition while it is folded: a reference, and what belongs to an object or enum."""

    ref: TypeRef
    description: str = ""
    functions: tuple[Function, ...] = ()
    constructor: Function | None = None
    members: tuple[str, ...] = ()

    def as_object(self) -> ObjectType:
        functions = {f.name: f for f in self.functions}
        return ObjectType(self.ref.name, self.description, functions, self.constructor)


def _definition(node: Node) -> _Definition:
    made = _Definition(TypeRef(""))
    for field, args in links(node):
        match field:
            case "typeDef":
                pass
            case "withKind":
                made = replace(made, ref=replace(made.ref, kind=str(args["kind"]).removesuffix("_KIND")))
            case "withOptional":
                made = replace(made, ref=replace(made.ref, optional=bool(args["optional"])))
            case "withListOf":
                element = _definition(args["elementType"]).ref
                made = replace(made, ref=replace(made.ref, kind=LIST, element=element))
            case "withObject" | "withInterface" | "withScalar" | "withEnum":
                kind = {"withObject": OBJECT, "withInterface": INTERFACE, "withScalar": SCALAR}.get(field, ENUM)
                ref = replace(made.ref, kind=kind, name=str(args["name"]))
                made = replace(made, ref=ref, description=_text(args, "description"))
            case "withField":
                returns = _definition(args["typeDef"]).ref
                held = Function(str(args["name"]), returns, _text(args, "description"), is_field=True)
                made = replace(made, functions=(*made.functions, held))
            case "withFunction":
                made = replace(made, functions=(*made.functions, _function(args["function"])))
            case "withConstructor":
                made = replace(made, constructor=_function(args["function"]))
            case "withEnumMember" | "withEnumValue":
                made = replace(made, members=(*made.members, str(args.get("name") or args.get("value"))))
            case "withSourceMap":
                pass
            case other:
                raise ValueError(f"type definition {other}")
    return made


def _function(node: Node) -> Function:
    made = Function("", TypeRef(""))
    for field, args in links(node):
        match field:
            case "function":
                returns = _definition(args["returnType"]).ref
                made = replace(made, name=str(args["name"]), returns=returns)
            case "withDescription":
                made = replace(made, description=_text(args, "description"))
            case "withArg":
                made = replace(made, arguments=(*made.arguments, _argument(args)))
            case "withCachePolicy":
                made = replace(made, cache=str(args["policy"]))
            case "withCheck":
                made = replace(made, check=True)
            case "withGenerator" | "withUp" | "withDeprecated" | "withSourceMap":
                pass  # listed and called like any other
            case other:
                raise ValueError(f"function field {other}")
    return made


def _argument(args: Mapping[str, Any]) -> Argument:
    default = args.get("defaultValue")
    return Argument(
        str(args["name"]),
        _definition(args["typeDef"]).ref,
        _text(args, "description"),
        None if default is None else str(default),
        _text(args, "defaultPath"),
        _text(args, "defaultAddress"),
        tuple(str(pattern) for pattern in args.get("ignore") or ()),
    )


def _text(args: Mapping[str, Any], name: str) -> str:
    return str(args.get(name) or "")


def error_value(node: Node) -> tuple[str, dict[str, str]]:
    """The message of an `error` chain and its values (JSON texts by name)."""
    message, values = "", dict[str, str]()
    for field, args in links(node):
        match field:
            case "error":
                message = str(args["message"])
            case "withValue":
                values[str(args["name"])] = str(args["value"])
            case other:
                raise ValueError(f"error field {other}")
    return message, values
