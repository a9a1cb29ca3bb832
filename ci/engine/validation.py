"""The rules that a request must keep before anything of it runs; messages are those of a 0.21.8 engine.

A Dagger engine leaves out two of the standard's rules (values of the right type, a selection for each object) and
knows no `@skip`; nor do we.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphql.language import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    ListTypeNode,
    NamedTypeNode,
    NonNullTypeNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_location,
)
from graphql.language import Node as AstNode
from graphql.pyutils import suggestion_list

from .schema import Schema, base_name

META = {"__typename": "String!"}
ROOT_META = {"__schema": "__Schema!", "__type": "__Type"}


def error(message: str, locations: Any = None, code: str = "GRAPHQL_VALIDATION_FAILED") -> dict[str, Any]:
    found: dict[str, Any] = {"message": message}
    if locations:
        found["locations"] = locations
    return found | {"extensions": {"code": code}}


def type_text(node: Any) -> str:
    match node:
        case NonNullTypeNode():
            return type_text(node.type) + "!"
        case ListTypeNode():
            return f"[{type_text(node.type)}]"
        case NamedTypeNode():
            return node.name.value
        case _:
            raise TypeError(node)


class Check:
    """Walks operations and notes what is wrong with them in `errors`."""

    def __init__(self, schema: Schema, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self.schema = schema
        self.fragments = fragments
        self.errors: list[dict[str, Any]] = []
        self.declared: dict[str, str] = {}
        self.used: set[str] = set()
        self.seen: set[str] = set()
        self.spread: set[str] = set()
        self.within: list[str] = []

    def fail(self, message: str, at: AstNode) -> None:
        skip = 0
        if isinstance(at, InlineFragmentNode) and at.loc:  # placed at its "on", behind the dots
            rest = at.loc.source.body[at.loc.start + 3 :]
            skip = 3 + len(rest) - len(rest.lstrip())
        where = get_location(at.loc.source, at.loc.start + skip) if at.loc else None
        found = error(message, [{"line": where.line, "column": where.column}] if where else None)
        if found not in self.errors:
            self.errors.append(found)

    def operation(self, node: OperationDefinitionNode) -> None:
        kind = node.operation.value
        if kind != "query":
            self.fail(f'Schema does not support operation type "{kind}"', node)
            return
        self.declared = {v.variable.name.value: type_text(v.type) for v in node.variable_definitions or ()}
        self.used = set()
        self.seen = set()
        self.selections(node.selection_set, "Query")
        for definition in node.variable_definitions or ():
            name = definition.variable.name.value
            if name not in self.used:
                self.fail(f'Variable "${name}" is never used.', definition)

    def unused(self) -> None:
        """Fragments that no operation uses, once all were walked."""
        for name, fragment in self.fragments.items():
            if name not in self.spread:
                self.fail(f'Fragment "{name}" is never used.', fragment)

    def selections(self, node: SelectionSetNode, on: str) -> None:
        for selection in node.selections:
            for directive in selection.directives or ():
                self.fail(f'Unknown directive "@{directive.name.value}".', directive.name)
                for argument in directive.arguments or ():
                    self.variables(argument.value, None)
            match selection:
                case FieldNode():
                    self.field(selection, on)
                case InlineFragmentNode():
                    target = selection.type_condition.name.value if selection.type_condition else on
                    if target not in self.schema.types:
                        assert selection.type_condition is not None
                        self.fail(f'Unknown type "{target}".', selection)
                        continue
                    self.selections(selection.selection_set, target)
                case FragmentSpreadNode():
                    name, fragment = selection.name.value, self.spread_by(selection)
                    if fragment is not None and name not in self.seen:
                        self.seen.add(name)
                        self.spread.add(name)
                        self.fragment(fragment)
                case _:
                    raise TypeError(selection.kind)

    def spread_by(self, node: FragmentSpreadNode) -> FragmentDefinitionNode | None:
        """The fragment that is spread; None where it is unknown or spread in itself, which is noted."""
        name = node.name.value
        fragment = self.fragments.get(name)
        if fragment is None:
            self.fail(f'Unknown fragment "{name}".', node.name)
            return None
        if name not in self.within:
            return fragment
        via = ", ".join(f'"{n}"' for n in self.within[self.within.index(name) + 1 :])
        self.fail(f'Cannot spread fragment "{name}" within itself{" via " + via if via else ""}.', node)
        return None

    def introspection(self, node: SelectionSetNode) -> None:
        """Fragments below `__schema` and `__type`, whose own types the schema does not list."""
        for selection in node.selections:
            if isinstance(selection, FragmentSpreadNode):
                name, fragment = selection.name.value, self.spread_by(selection)
                if fragment is not None and name not in self.spread:
                    self.spread.add(name)
                    self.within.append(name)
                    self.introspection(fragment.selection_set)
                    self.within.pop()
            elif isinstance(selection, FieldNode | InlineFragmentNode) and selection.selection_set is not None:
                self.introspection(selection.selection_set)

    def fragment(self, node: FragmentDefinitionNode) -> None:
        target = node.type_condition.name.value
        if target not in self.schema.types:
            self.fail(f'Unknown type "{target}".', node)
            return
        self.within.append(node.name.value)
        self.selections(node.selection_set, target)
        self.within.pop()

    def field(self, node: FieldNode, on: str) -> None:
        name = node.name.value
        if name in META or (on == "Query" and name in ROOT_META):
            for argument in node.arguments or ():
                self.variables(argument.value, None)
            if node.selection_set is not None:
                self.introspection(node.selection_set)
            return
        found = self.schema.field(on, name)
        if found is None:
            known = self.schema.types[on].fields if on in self.schema.types else {}
            self.fail(f'Cannot query field "{name}" on type "{on}".{_near(name, known)}', node)
            return
        given = {a.name.value: a for a in node.arguments or ()}
        for argument in node.arguments or ():
            if given[argument.name.value] is not argument:
                self.fail(f'There can be only one argument named "{argument.name.value}".', argument)
        for each in given:
            if each not in found.args:
                self.fail(f'Unknown argument "{each}" on field "{on}.{name}".{_near(each, found.args)}', node)
        for argument in found.args.values():
            if argument.required and argument.name not in given:
                self.fail(
                    f'Field "{name}" argument "{argument.name}" of type "{argument.type}" is required, '
                    "but it was not provided.",
                    node,
                )
        for each, argument in given.items():
            self.variables(argument.value, found.args[each].type if each in found.args else None)
        if node.selection_set is not None:
            inner = base_name(found.type)
            self.selections(node.selection_set, inner)

    def variables(self, node: ValueNode, wanted: str | None) -> None:
        for variable, expected in _variables(node, wanted):
            name = variable.name.value
            self.used.add(name)
            if name not in self.declared:
                self.fail(f'Variable "${name}" is not defined.', variable)
            elif expected is not None and not _fits(self.declared[name], expected):
                self.fail(
                    f'Variable "${name}" of type "{self.declared[name]}" used in position expecting type "{expected}".',
                    variable,
                )


def _near(name: str, known: Iterable[str]) -> str:
    """What may have been meant, as a sentence to append."""
    names = [f'"{n}"' for n in suggestion_list(name, list(known))[:5]]
    if not names:
        return ""
    if len(names) < 3:
        return f" Did you mean {' or '.join(names)}?"
    return f" Did you mean {', '.join(names[:-1])}, or {names[-1]}?"


def _variables(node: ValueNode, wanted: str | None) -> Iterator[tuple[VariableNode, str | None]]:
    from graphql.language import ListValueNode, ObjectValueNode

    match node:
        case VariableNode():
            yield node, wanted
        case ListValueNode():
            for item in node.values:
                yield from _variables(item, None)
        case ObjectValueNode():
            for field in node.fields:
                yield from _variables(field.value, None)
        case _:
            pass


def _fits(declared: str, wanted: str) -> bool:
    """Whether a variable's type may stand where `wanted` is expected.

    Only the names are compared, and a lone value may stand for a list; values are checked when they are read.
    """
    return base_name(declared) == base_name(wanted)
