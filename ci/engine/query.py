"""From a request's text to a checked operation.

Parsing is graphql-core's; the rules are checked by `validation`, because a Dagger engine's differ from the standard's
(no `@skip`, no built-in check that an object has a selection) and building a graphql-core schema would cost
more than running the query. Messages and statuses are those of a 0.21.8 engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql.error import GraphQLSyntaxError
from graphql.language import (
    FragmentDefinitionNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    parse,
    parser,
)

from .depth import MAX_DEPTH
from .errors import RequestError
from .schema import Schema
from .validation import Check, error, type_text

parser.MAX_NESTING_DEPTH = MAX_DEPTH  # its own 200 is there for PyPy


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
    except GraphQLSyntaxError as wrong:
        message = wrong.message.removeprefix("Syntax Error: ").removesuffix(".")
        message = re.sub(r"\b(Name|Int|Float|String) '([^']*)'", r'\1 "\2"', message)
        message = re.sub(r"'([^']*)'", r"\1", message)
        where = [{"line": at.line, "column": at.column} for at in wrong.locations or []]
        raise RequestError([error(message, where, "GRAPHQL_PARSE_FAILED")], 422) from None
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)] if document else []
    if not operations:
        raise RequestError([error("no operation provided")], 422)
    assert document is not None
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    check = Check(schema, fragments)
    for each in operations:
        check.operation(each)
    check.unused()
    if check.errors:
        raise RequestError(check.errors, 422)
    chosen = [o for o in operations if not name or (o.name and o.name.value == name)]
    if len(chosen) != 1:
        raise RequestError([error(f"operation {name or ''} not found")], 422)
    operation = chosen[0]
    declared = {v.variable.name.value: type_text(v.type) for v in operation.variable_definitions or ()}
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
