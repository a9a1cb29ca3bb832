"""Answers `__schema` and `__type` from the schema that the client's classes give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from graphql.language import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, InlineFragmentNode, SelectionSetNode

from .errors import FieldError
from .needs import Steps
from .query import literal
from .schema import DIRECTIVES, Argument, FieldDef, Schema, TypeDef, base_name

Fragments = Mapping[str, FragmentDefinitionNode]


def answer(schema: Schema, field: FieldNode, args: Mapping[str, Any], fragments: Fragments) -> Steps:
    """The answer of one introspection field. Raises FieldError for a type that does not exist."""
    yield from ()
    view = _View(schema, fragments)
    if field.name.value == "__schema":
        value: Any = _Schema(schema)
    else:
        name = str(args.get("name"))
        if name not in schema.types:
            raise FieldError(f'unknown type: "{name}"', path=["__type"])
        value = schema.types[name]
    assert field.selection_set is not None
    return view.select(value, field.selection_set)


class _Schema:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema


class _Directive:
    def __init__(self, name: str) -> None:
        self.name = name


class _Enum:
    def __init__(self, name: str) -> None:
        self.name = name


class _View:
    def __init__(self, schema: Schema, fragments: Fragments) -> None:
        self.schema = schema
        self.fragments = fragments

    def select(self, value: Any, selections: SelectionSetNode) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return [self.select(v, selections) for v in value]
        found: dict[str, Any] = {}
        for key, field in self._fields(selections):
            args = {a.name.value: literal(a.value, {}) for a in field.arguments or ()}
            inner = self.read(value, field.name.value, args)
            found[key] = self.select(inner, field.selection_set) if field.selection_set else inner
        return found

    def _fields(self, selections: SelectionSetNode) -> Iterator[tuple[str, FieldNode]]:
        for selection in selections.selections:
            match selection:
                case FieldNode():
                    yield (selection.alias or selection.name).value, selection
                case InlineFragmentNode():
                    yield from self._fields(selection.selection_set)
                case FragmentSpreadNode():
                    yield from self._fields(self.fragments[selection.name.value].selection_set)
                case _:
                    pass

    def read(self, value: Any, name: str, args: Mapping[str, Any]) -> Any:
        """One field of a `__Schema`, `__Type`, `__Field`, `__InputValue`, `__EnumValue` or `__Directive`."""
        match value:
            case _Schema():
                return self._schema(name)
            case str():
                return self._type_ref(value, name, args)
            case TypeDef():
                return self._type(value, name, args)
            case FieldDef():
                return {
                    "name": value.name,
                    "description": value.doc or None,
                    "args": [a for a in value.args.values() if ".. deprecated::" not in a.doc],
                    "type": value.type,
                    "isDeprecated": value.deprecated is not None,
                    "deprecationReason": value.deprecated,
                }.get(name, [] if name == "directives" else None)
            case Argument():
                return {
                    "name": value.name,
                    "description": value.doc or None,
                    "type": value.type,
                    "defaultValue": self._default(value),
                    "isDeprecated": False,
                }.get(name, [] if name == "directives" else None)
            case _Enum():
                return {"name": value.name, "isDeprecated": False}.get(name, [] if name == "directives" else None)
            case _Directive():
                return {"name": value.name, "args": [], "locations": [], "isRepeatable": False}.get(name)
            case _:
                return None

    def _schema(self, name: str) -> Any:
        match name:
            case "types":
                return list(self.schema.types.values())
            case "queryType":
                return self.schema.types["Query"]
            case "directives":
                return [_Directive(d) for d in DIRECTIVES]
            case _:
                return None

    def _type(self, value: TypeDef, name: str, args: Mapping[str, Any]) -> Any:
        match name:
            case "kind" | "name":
                return getattr(value, name)
            case "description":
                return value.doc or None
            case "fields":
                if value.kind not in ("OBJECT", "INTERFACE"):
                    return None
                keep = args.get("includeDeprecated", False)
                return [f for f in value.fields.values() if keep or f.deprecated is None]
            case "interfaces":
                return [self.schema.types[i] for i in value.interfaces] if value.kind == "OBJECT" else None
            case "inputFields":
                return list(value.inputs.values()) if value.kind == "INPUT_OBJECT" else None
            case "enumValues":
                return [_Enum(v) for v in value.values] if value.kind == "ENUM" else None
            case "possibleTypes":
                if value.kind != "INTERFACE":
                    return None
                return [t for t in self.schema.types.values() if value.name in t.interfaces]
            case "directives":
                return []
            case _:
                return None

    def _type_ref(self, text: str, name: str, args: Mapping[str, Any]) -> Any:
        if text.endswith("!"):
            return {"kind": "NON_NULL", "ofType": text[:-1]}.get(name)
        if text.startswith("["):
            return {"kind": "LIST", "ofType": text[1:-1]}.get(name)
        return self._type(self.schema.types[text], name, args)

    def _default(self, argument: Argument) -> str | None:
        if not argument.has_default:
            return None
        known = self.schema.types.get(base_name(argument.type))
        if known is not None and known.kind == "ENUM" and isinstance(argument.default, str):
            return argument.default
        return json.dumps(argument.default)
