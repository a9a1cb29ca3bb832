"""Runs a checked operation: calls the fields' functions, and builds what they need in rounds.

Every object field makes a node and its value; every scalar asks its function. What the functions of one query
need from BuildKit in one round is one build. One failing field makes the whole answer null, as on a Dagger
engine; each failing root field gives one error.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from graphql.language import FieldNode, FragmentSpreadNode, InlineFragmentNode, SelectionSetNode

from . import graph, introspect
from .coerce import arguments
from .errors import FieldError, Unsupported
from .graph import ROOT, Node
from .needs import Need, Steps, gather, relay
from .query import Operation, literal
from .registry import Call, resolver
from .schema import FieldDef, TypeDef, base_name, is_list

if TYPE_CHECKING:
    from .session import Session

LOAD = re.compile(r"load(\w+)FromID")


def run(session: Session, operation: Operation) -> dict[str, Any]:
    """The GraphQL answer (`data`, `errors`). Raises RequestError for an argument that does not fit."""
    return _Run(session, operation).answer()


class _Run:
    def __init__(self, session: Session, operation: Operation) -> None:
        self.session = session
        self.schema = session.schema
        self.op = operation
        self.args: dict[int, tuple[dict[str, Any], frozenset[str]]] = {}
        self._coerce(operation.selections, "Query", set())

    def answer(self) -> dict[str, Any]:
        fields = list(self._fields(self.op.selections, ROOT.type))
        results = self._drive(gather([self._root(f) for _, f in fields], catch=True))
        failed = [r for r in results if isinstance(r, FieldError)]
        if failed:
            return {"errors": [self._error(f) for f in failed], "data": None}
        return {"data": _laid_together([k for k, _ in fields], results)}

    def _drive(self, steps: Generator[list[Need], list[Any], list[Any]]) -> list[Any]:
        answers: list[Any] | None = None
        try:
            while True:
                needs = steps.send(answers)  # type: ignore[arg-type]
                answers = self.session.build(needs)
        except StopIteration as done:
            return done.value

    def _error(self, failed: FieldError) -> dict[str, Any]:
        entry: dict[str, Any] = {"message": failed.text()}
        if failed.path:
            entry["path"] = list(failed.path)
        extensions = failed.extensions()
        return entry | ({"extensions": extensions} if extensions else {})

    # Arguments are all read before anything runs: a value that does not fit runs nothing.

    def _coerce(self, selections: SelectionSetNode, on: str, seen: set[str]) -> None:
        for selection in selections.selections:
            match selection:
                case FieldNode():
                    found = self.schema.field(on, selection.name.value)
                    if found is None:
                        continue
                    given = {a.name.value: literal(a.value, self.op.variables) for a in selection.arguments or ()}
                    # a variable that is not given counts as an argument that is not given
                    missing = [n for n, v in given.items() if v is None and self._left_out(selection, n)]
                    for name in missing:
                        del given[name]
                    values = arguments(self.schema, found, given, self.session.find, self.op.text)
                    self.args[id(selection)] = values, frozenset(given)
                    if selection.selection_set:
                        self._coerce(selection.selection_set, base_name(found.type), seen)
                case InlineFragmentNode():
                    inner = selection.type_condition.name.value if selection.type_condition else on
                    self._coerce(selection.selection_set, inner, seen)
                case FragmentSpreadNode():
                    name = selection.name.value
                    if name not in seen:
                        seen.add(name)
                        fragment = self.op.fragments[name]
                        self._coerce(fragment.selection_set, fragment.type_condition.name.value, seen)
                case _:
                    pass

    def _left_out(self, field: FieldNode, name: str) -> bool:
        from graphql.language import VariableNode

        value = next(a.value for a in field.arguments or () if a.name.value == name)
        return isinstance(value, VariableNode) and value.name.value not in self.op.variables

    def _fields(self, selections: SelectionSetNode, on: str) -> Iterator[tuple[str, FieldNode]]:
        """Fields selected on an object of type `on`, fragments resolved, with the key of each in the answer."""
        for selection in selections.selections:
            match selection:
                case FieldNode():
                    yield (selection.alias or selection.name).value, selection
                case InlineFragmentNode():
                    condition: Any = selection.type_condition  # None where a fragment names no type
                    if condition is None or self._is(on, condition.name.value):
                        yield from self._fields(selection.selection_set, on)
                case FragmentSpreadNode():
                    fragment = self.op.fragments[selection.name.value]
                    if self._is(on, fragment.type_condition.name.value):
                        yield from self._fields(fragment.selection_set, on)
                case _:
                    pass

    def _is(self, on: str, wanted: str) -> bool:
        known = self.schema.types.get(on)
        return on == wanted or (known is not None and wanted in known.interfaces)

    def _root(self, field: FieldNode) -> Steps:
        if field.name.value in ("__schema", "__type"):
            arguments_ = {a.name.value: literal(a.value, self.op.variables) for a in field.arguments or ()}
            return (yield from introspect.answer(self.schema, field, arguments_, self.op.fragments))
        return (yield from self._field(ROOT, None, (field.alias or field.name).value, field))

    def _select(self, node: Node, value: Any, selections: SelectionSetNode) -> Steps:
        fields = list(self._fields(selections, node.type))
        results = yield from gather([self._field(node, value, key, f) for key, f in fields])
        return _laid_together([k for k, _ in fields], results)

    def _field(self, node: Node, value: Any, key: str, ast: FieldNode) -> Steps:
        name = ast.name.value
        path = [*node.path(), key]
        if name == "__typename":
            return node.type
        try:
            if name == "id":
                if node is ROOT:
                    raise FieldError("result *core.Query is detached")
                return self.session.remember(node)
            found = self.schema.field(node.type, name)
            assert found is not None  # `query.prepare` checked it
            args, given = self.args[id(ast)]
            inner = self.schema.types[base_name(found.type)]
            made = graph.call(node, inner.name, name, args, given)
            if inner.kind not in ("OBJECT", "INTERFACE"):
                return (yield from self._scalar(made, value, found))
            if ast.selection_set is None:
                raise FieldError(f'field "{name}" of type "{inner.name}" must have a selection of subfields', path=path)
            made, result = yield from self._object(made, inner)
        except FieldError as failed:
            if failed.path is None:
                failed.path = path
            raise
        if result is None:
            return None
        if is_list(found.type):
            members = [graph.member(made, i) for i in range(len(result))]
            for each, one in zip(members, result, strict=True):
                self.session.keep(each, one)
            return (
                yield from gather([self._select(m, v, ast.selection_set) for m, v in zip(members, result, strict=True)])
            )
        return (yield from self._select(made, result, ast.selection_set))

    def _scalar(self, node: Node, parent: Any, found: FieldDef) -> Steps:
        result = yield from self.session.scalar(node, parent, found)
        if isinstance(result, Node):
            return self.session.remember(result)
        return result

    def _object(self, node: Node, inner: TypeDef) -> Generator[list[Need], list[Any], tuple[Node, Any]]:
        load = LOAD.fullmatch(node.field)
        if node.parent is ROOT and (load or node.field == "node"):
            target: Node = node.args["id"]
            if load and not self._is(target.type, load[1]):
                raise FieldError(f"load {load[1]}: expected {load[1]}, got {target.type}")
            return (yield from self.session.value(target))
        return (yield from self.session.value(node))


def _laid_together(keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """An answer's object; a key that a query asks for twice (a fragment's and its own) has what both chose."""
    found: dict[str, Any] = {}
    for key, value in zip(keys, values, strict=True):
        found[key] = _both(found[key], value) if key in found else value
    return found


def _both(one: Any, other: Any) -> Any:
    match one, other:
        case dict(), dict():
            return _laid_together([*one, *other], [*one.values(), *other.values()])
        case list(), list() if len(one) == len(other):
            return [_both(a, b) for a, b in zip(one, other, strict=True)]
        case _:
            return other


def evaluate(session: Session, node: Node) -> Generator[list[Need], list[Any], tuple[Node, Any]]:
    """A node's value: its field's function called on its parent's value.

    Gives the node too, since a function may answer with another node that stands in for this one.
    """
    assert node.parent is not None
    if node.index is not None:
        whole = Node(node.type, node.field, node.args, node.given, node.parent)
        _, members = yield from session.value(whole)
        return node, members[node.index]
    function = resolver(node.parent.type, node.field)
    if function is None:
        raise Unsupported(f"{node.parent.type}.{node.field}")
    parent = None
    if node.parent is not ROOT:
        _, parent = yield from session.value(node.parent)
    result = yield from call(session, node, parent)
    if isinstance(result, Node):
        return (yield from session.value(result))
    return node, result


def call(session: Session, node: Node, parent: Any) -> Steps:
    """Call the function of a node's field and wait for what it needs."""
    assert node.parent is not None
    function = resolver(node.parent.type, node.field)
    if function is None:
        raise Unsupported(f"{node.parent.type}.{node.field}")
    args = dict(node.args)
    for name, value in node.args.items():
        if isinstance(value, Node):
            _, args[name] = yield from session.value(value)
        elif isinstance(value, list) and value and isinstance(value[0], Node):
            found: list[Any] = []
            for each in value:
                found.append((yield from session.value(each))[1])
            args[name] = found
    result = function.run(Call(session, node), parent, args)
    if inspect.isgenerator(result):
        result = yield from relay(cast(Steps, result))
    return result
