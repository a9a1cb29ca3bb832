"""From a request's text to a checked operation.

Parsing is graphql-core's; the rules are checked here, because a Dagger engine's differ from the standard's
(no `@skip`, no built-in check that an object has a selection) and building a graphql-core schema would cost
more than running the query. Messages and statuses are those of a 0.21.8 engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql.error import GraphQLSyntaxError
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
    parse,
    parser,
)
from graphql.language import Node as AstNode
from graphql.pyutils import suggestion_list

from .depth import MAX_DEPTH
from .errors import RequestError
from .schema import Schema, base_name

parser.MAX_NESTING_DEPTH = MAX_DEPTH  # its own 200 is there for PyPy

META = {"__typename": "String!"}
ROOT_META = {"__schema": "__Schema!", "__type": "__Type"}


@dataclass(frozen=True)
class Operation:
    """A checked query with its variables' values."""

    text: str
    selections: SelectionSetNode
    fragments: Mapping[str, FragmentDefinitionNode]
    variables: Mapping[str, Any]
    declared: Mapping[str, str]
    """Types of the variables as the query declares them."""


def prepare(schema: Schema, text: str, variables: Mapping[str, Any] | None, name: str | None) -> Operation:
    """Parse and check a request. Raises RequestError with the errors of all rules that it breaks."""
    try:
        document = parse(text) if text.strip() else None
    except GraphQLSyntaxError as error:
        message = error.message.removeprefix("Syntax Error: ").removesuffix(".")
        message = re.sub(r"\b(Name|Int|Float|String) '([^']*)'", r'\1 "\2"', message)
        message = re.sub(r"'([^']*)'", r"\1", message)
        where = [{"line": at.line, "column": at.column} for at in error.locations or []]
        raise RequestError([_error(message, where, "GRAPHQL_PARSE_FAILED")], 422) from None
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)] if document else []
    if not operations:
        raise RequestError([_error("no operation provided")], 422)
    assert document is not None
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    check = _Check(schema, fragments)
    for each in operations:
        check.operation(each)
    if check.errors:
        raise RequestError(check.errors, 422)
    chosen = [o for o in operations if not name or (o.name and o.name.value == name)]
    if len(chosen) != 1:
        raise RequestError([_error(f"operation {name or ''} not found")], 422)
    operation = chosen[0]
    declared = {v.variable.name.value: _type_text(v.type) for v in operation.variable_definitions or ()}
    values: dict[str, Any] = {}
    for definition in operation.variable_definitions or ():
        known = definition.variable.name.value
        if variables is not None and known in variables:
            values[known] = _marked(variables[known])
        elif definition.default_value is not None:
            values[known] = literal(definition.default_value, {})
        elif declared[known].endswith("!"):
            failed: dict[str, Any] = {
                "message": "must be defined",
                "path": ["variable", known],
                "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"},
            }
            raise RequestError([failed], 422)
    return Operation(text, operation.selection_set, fragments, values, declared)


def literal(node: ValueNode, variables: Mapping[str, Any]) -> Any:
    """The Python value of a literal or variable; enum members come as `Symbol`."""
    from graphql.language import (
        BooleanValueNode,
        EnumValueNode,
        FloatValueNode,
        IntValueNode,
        ListValueNode,
        NullValueNode,
        ObjectValueNode,
        StringValueNode,
    )

    match node:
        case VariableNode():
            return variables.get(node.name.value)
        case IntValueNode():
            return int(node.value)
        case FloatValueNode():
            return float(node.value)
        case StringValueNode() | BooleanValueNode():
            return node.value
        case EnumValueNode():
            return Symbol(node.value)
        case ListValueNode():
            return [literal(v, variables) for v in node.values]
        case ObjectValueNode():
            return {f.name.value: literal(f.value, variables) for f in node.fields}
        case NullValueNode():
            return None
        case _:
            raise TypeError(f"no value: {node.kind}")


def _marked(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return Number(value)
        case list():
            return [_marked(v) for v in value]
        case dict():
            return {k: _marked(v) for k, v in value.items()}
        case _:
            return value


class Number(int):
    """A whole number that came as a variable: a Dagger engine's decoder keeps those as text and says so."""


class Symbol(str):
    """An enum member written as a word, not as a string."""

    __slots__ = ()


def _error(message: str, locations: Any = None, code: str = "GRAPHQL_VALIDATION_FAILED") -> dict[str, Any]:
    found: dict[str, Any] = {"message": message}
    if locations:
        found["locations"] = locations
    return found | {"extensions": {"code": code}}


def _type_text(node: Any) -> str:
    match node:
        case NonNullTypeNode():
            return _type_text(node.type) + "!"
        case ListTypeNode():
            return f"[{_type_text(node.type)}]"
        case NamedTypeNode():
            return node.name.value
        case _:
            raise TypeError(node)


class _Check:
    def __init__(self, schema: Schema, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self.schema = schema
        self.fragments = fragments
        self.errors: list[dict[str, Any]] = []
        self.declared: dict[str, str] = {}
        self.used: set[str] = set()
        self.seen: set[str] = set()

    def fail(self, message: str, at: AstNode) -> None:
        skip = 0
        if isinstance(at, InlineFragmentNode) and at.loc:  # placed at its "on", behind the dots
            rest = at.loc.source.body[at.loc.start + 3 :]
            skip = 3 + len(rest) - len(rest.lstrip())
        where = get_location(at.loc.source, at.loc.start + skip) if at.loc else None
        found = _error(message, [{"line": where.line, "column": where.column}] if where else None)
        if found not in self.errors:
            self.errors.append(found)

    def operation(self, node: OperationDefinitionNode) -> None:
        kind = node.operation.value
        if kind != "query":
            self.fail(f'Schema does not support operation type "{kind}"', node)
            return
        self.declared = {v.variable.name.value: _type_text(v.type) for v in node.variable_definitions or ()}
        self.used = set()
        self.seen = set()
        self.selections(node.selection_set, "Query")
        for definition in node.variable_definitions or ():
            name = definition.variable.name.value
            if name not in self.used:
                self.fail(f'Variable "${name}" is never used.', definition)

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
                    name = selection.name.value
                    fragment = self.fragments.get(name)
                    if fragment is None:
                        self.fail(f'Unknown fragment "{name}".', selection.name)
                    elif name not in self.seen:
                        self.seen.add(name)
                        self.selections(fragment.selection_set, fragment.type_condition.name.value)
                case _:
                    raise TypeError(selection.kind)

    def field(self, node: FieldNode, on: str) -> None:
        name = node.name.value
        if name in META or (on == "Query" and name in ROOT_META):
            for argument in node.arguments or ():
                self.variables(argument.value, None)
            return
        found = self.schema.field(on, name)
        if found is None:
            known = self.schema.types[on].fields if on in self.schema.types else {}
            self.fail(f'Cannot query field "{name}" on type "{on}".{_near(name, known)}', node)
            return
        given = {a.name.value: a for a in node.arguments or ()}
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
