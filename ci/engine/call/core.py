"""The types a call can meet: the module's own and, for chaining on, the core API's as the session's schema has them.

    catalog = TypeCatalog.of(source, types)
    catalog.object("Container").functions["withExec"].arguments

A core object's description is built only when a call reaches it. The schema says `ID` where an object is wanted;
which object that is stands in the client's own signatures, so those are looked up there.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ci.engine import schema as api
from ci.engine.module.names import pascal
from ci.engine.module.types import (
    ENUM,
    INPUT,
    LIST,
    OBJECT,
    SCALAR,
    Argument,
    EnumType,
    Function,
    ModuleTypes,
    ObjectType,
    TypeRef,
)

_BUILTIN = {"String": "STRING", "Int": "INTEGER", "Float": "FLOAT", "Boolean": "BOOLEAN", "Void": "VOID"}


@dataclass(frozen=True)
class TypeCatalog:
    """Looks types up by name: the module's first, then the core API's."""

    main: str
    module: ModuleTypes

    @classmethod
    def of(cls, module_name: str, types: ModuleTypes) -> TypeCatalog:
        return cls(pascal(module_name), types)

    def object(self, name: str) -> ObjectType | None:
        """The object type of this name, or None."""
        return self.module.objects.get(name) or core_object(name)

    def is_own(self, name: str) -> bool:
        """Whether the module itself defines the object."""
        return name in self.module.objects

    def enum(self, name: str) -> EnumType:
        """The enum of this name. Raises KeyError."""
        if name in self.module.enums:
            return self.module.enums[name]
        found = core().types[name]
        return EnumType(name, found.doc, tuple(found.values))


@functools.cache
def core() -> api.Schema:
    """The core API's schema."""
    return api.load()


@functools.cache
def core_object(name: str) -> ObjectType | None:
    """A core object's functions, or None where the core API has no such object."""
    found = core().types.get(name)
    if found is None or found.kind != "OBJECT":
        return None
    wanted = _wanted_objects(name)
    functions = {f.name: _function(f, name, wanted) for f in found.fields.values() if f.name != "id"}
    return ObjectType(name, _unwrapped(found.doc), functions)


def _function(field: api.FieldDef, owner: str, wanted: dict[tuple[str, str], str]) -> Function:
    returns = TypeRef(OBJECT, owner) if field.name == "sync" else _type(field.type)
    arguments = tuple(
        Argument(
            a.name,
            _type(a.type if not a.has_default else a.type.removesuffix("!"), wanted.get((field.name, a.name), "")),
            _unwrapped(a.doc),
            json.dumps(a.default) if a.has_default else None,
        )
        for a in field.args.values()
    )
    return Function(field.name, returns, _unwrapped(field.doc), arguments)


def _unwrapped(text: str) -> str:
    """A docstring without its line breaks, as the API's description has it."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def _type(text: str, wanted: str = "") -> TypeRef:
    """A GraphQL type as ours; `wanted` names the object that an ID stands for."""
    optional, text = not text.endswith("!"), text.removesuffix("!")
    if text.startswith("["):
        return TypeRef(LIST, optional=optional, element=_type(text[1:-1], wanted))
    if text in _BUILTIN:
        return TypeRef(_BUILTIN[text], optional=optional)
    if text == "ID":
        return TypeRef(OBJECT, wanted, optional) if wanted else TypeRef("STRING", optional=optional)
    kinds = {"ENUM": ENUM, "SCALAR": SCALAR, "INPUT_OBJECT": INPUT}
    found = core().types.get(text)
    return TypeRef(kinds.get(found.kind, OBJECT) if found else OBJECT, text, optional)


_METHOD = re.compile(r"def \w+\(\s*self,?(?P<parameters>[^)]*)\) ->.*?_select\(\s*\"(?P<field>\w+)\"", re.DOTALL)
_PARAMETER = re.compile(r"(\w+): (?:list\[)?\"?([A-Z]\w+)\"?")
_ARG = re.compile(r"Arg\(\s*\"(\w+)\",\s*(?:\[\] if \w+ is None else )?(\w+)")


def _wanted_objects(name: str) -> dict[tuple[str, str], str]:
    """(field, argument) -> object type, for every argument of a core object's fields that wants an object."""
    spec = importlib.util.find_spec("dagger")
    assert spec is not None
    assert spec.submodule_search_locations
    text = (Path(spec.submodule_search_locations[0]) / "client" / "gen.py").read_text()
    start = text.find(f"\nclass {name}(")
    section = text[start : text.find("\n@typecheck", start) if "\n@typecheck" in text[start:] else None]
    found: dict[tuple[str, str], str] = {}
    for method in _METHOD.finditer(section):
        hints = dict(_PARAMETER.findall(method["parameters"]))
        for graphql, python in _ARG.findall(method[0]):
            if python in hints:
                found[method["field"], graphql] = name if hints[python] == "Self" else hints[python]
    return found
