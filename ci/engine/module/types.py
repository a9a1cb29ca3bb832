"""What a module or the core API offers, as plain values: objects, functions, arguments, types, enums.

The same model describes a module (from its registration, see `module`) and the core API (from the session's
schema, see `call_core`), so that the command line parses, explains and chains both alike. It survives a trip
through JSON, which is how a registration is kept between calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STRING, INTEGER, FLOAT, BOOLEAN, VOID = "STRING", "INTEGER", "FLOAT", "BOOLEAN", "VOID"
SCALAR, ENUM, OBJECT, INPUT, INTERFACE, LIST = "SCALAR", "ENUM", "OBJECT", "INPUT", "INTERFACE", "LIST"


@dataclass(frozen=True)
class TypeRef:
    """The type of an argument or a result: a kind, a name for named kinds, the element's type for lists."""

    kind: str
    name: str = ""
    optional: bool = False
    element: TypeRef | None = None

    @property
    def innermost(self) -> TypeRef:
        """The type itself, or what a list (of lists) holds."""
        return self.element.innermost if self.element else self


@dataclass(frozen=True)
class Argument:
    """One argument. `default` is JSON text, or None where there is none."""

    name: str
    type: TypeRef
    description: str = ""
    default: str | None = None
    default_path: str = ""
    default_address: str = ""
    ignore: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return not (self.type.optional or self.default is not None or self.default_path or self.default_address)


@dataclass(frozen=True)
class Function:
    """A function, or a field (one without arguments whose value the object holds)."""

    name: str
    returns: TypeRef
    description: str = ""
    arguments: tuple[Argument, ...] = ()
    check: bool = False
    cache: str = ""
    """Dagger's cache policy by name (`Never`, `PerSession`, `Default`); empty: not said."""
    is_field: bool = False

    def argument(self, name: str) -> Argument:
        """The argument of this name. Raises KeyError."""
        return next(a for a in self.arguments if a.name == name)


@dataclass(frozen=True)
class ObjectType:
    """An object with its functions and fields, by name."""

    name: str
    description: str = ""
    functions: Mapping[str, Function] = field(default_factory=dict[str, Function])
    constructor: Function | None = None


@dataclass(frozen=True)
class EnumType:
    """An enum: its members' names in order of declaration."""

    name: str
    description: str = ""
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleTypes:
    """Everything a module registered."""

    description: str = ""
    objects: Mapping[str, ObjectType] = field(default_factory=dict[str, ObjectType])
    enums: Mapping[str, EnumType] = field(default_factory=dict[str, EnumType])

    def to_json(self) -> dict[str, Any]:
        """A value that `json.dumps` takes and `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModuleTypes:
        """Read what `to_json` gave. Raises KeyError or TypeError on anything else."""
        return cls(
            data["description"],
            {name: _object(value) for name, value in data["objects"].items()},
            {name: _enum(value) for name, value in data["enums"].items()},
        )


def _enum(data: Mapping[str, Any]) -> EnumType:
    return EnumType(data["name"], data["description"], tuple(data["members"]))


def _type(data: Mapping[str, Any]) -> TypeRef:
    element = data["element"]
    return TypeRef(data["kind"], data["name"], data["optional"], _type(element) if element else None)


def _argument(data: dict[str, Any]) -> Argument:
    read: dict[str, Any] = {**data, "type": _type(data["type"]), "ignore": tuple(data["ignore"])}
    return Argument(**read)


def _function(data: dict[str, Any]) -> Function:
    arguments = tuple(_argument(a) for a in data["arguments"])
    read: dict[str, Any] = {**data, "returns": _type(data["returns"]), "arguments": arguments}
    return Function(**read)


def _object(data: Mapping[str, Any]) -> ObjectType:
    constructor = data["constructor"]
    return ObjectType(
        data["name"],
        data["description"],
        {name: _function(value) for name, value in data["functions"].items()},
        _function(constructor) if constructor else None,
    )
