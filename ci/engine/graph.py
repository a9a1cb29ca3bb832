"""The pipeline as data: immutable nodes, one for every field that was called.

    Query --container--> Container --from(address)--> Container --withExec(args)--> Container

A node is `(type, field, args, parent)`; arguments that are objects are nodes themselves. Its `key` is a hash
of all that, so equal chains are one node, and its `id` is what a client holds. Nodes say what was asked; what
it amounts to (a container's configuration and files) is the node's value, which the session works out by
calling the field's function (`registry.py`) when something needs it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any


class Hidden(str):
    """An argument that takes no part in a node's key and is never written or shown (a secret's plaintext)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, eq=False)
class Node:
    """A field that was called on an object, and the object that it gives."""

    type: str
    """GraphQL type of what this node is."""
    field: str = ""
    args: Mapping[str, Any] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    """Every declared argument by GraphQL name: JSON values, nodes, lists of nodes."""
    given: frozenset[str] = frozenset()
    """Names of the arguments that the query gave (the others hold their defaults)."""
    parent: Node | None = None
    index: int | None = None
    """Which member, where the field gives a list of objects."""

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits: equal for equal chains, in every session."""
        described = [self.type, self.field, _plain(self.args), self.parent.key if self.parent else "", self.index]
        return hashlib.sha256(json.dumps(described, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def id(self) -> str:
        """The handle that clients hold."""
        return f"{self.type}@{self.key[:40]}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def chain(self) -> list[Node]:
        """From the first field called to this one; the root query is left out."""
        nodes: list[Node] = []
        node: Node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def path(self) -> list[str]:
        """Field names of the chain, as an error's path has them."""
        return [n.field for n in self.chain()]

    def inputs(self) -> Iterator[tuple[str, Node]]:
        """Objects among the arguments, with the argument's name."""
        for name, value in self.args.items():
            for item in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
                if isinstance(item, Node):
                    yield name, item

    def __repr__(self) -> str:
        return f"<{'.'.join(self.path()) or 'Query'}>"


ROOT = Node("Query")


def _plain(value: Any) -> Any:
    match value:
        case Node():
            return {"node": value.key}
        case Hidden():
            return None
        case Mapping():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case _:
            return value


def call(
    parent: Node, type_name: str, field_name: str, args: Mapping[str, Any], given: frozenset[str] = frozenset()
) -> Node:
    """The node of a field called on `parent`."""
    return Node(type_name, field_name, MappingProxyType(dict(args)), given, parent)


def member(node: Node, index: int) -> Node:
    """One object of the list that `node`'s field gives."""
    return Node(node.type, node.field, node.args, node.given, node.parent, index)


def dump(node: Node) -> Any:
    """A node as JSON, for a later session. Hidden arguments are left out."""

    def value(v: Any) -> Any:
        match v:
            case Node():
                return {"node": dump(v)}
            case Hidden():
                return None
            case Mapping():
                return {"map": {k: value(x) for k, x in v.items()}}
            case list() | tuple():
                return [value(x) for x in v]
            case _:
                return v

    return [[n.type, n.field, {k: value(v) for k, v in n.args.items()}, sorted(n.given), n.index] for n in node.chain()]


def revive(steps: Any) -> Node:
    """The node that `dump` wrote."""

    def value(v: Any) -> Any:
        if isinstance(v, dict):
            return revive(v["node"]) if "node" in v else {k: value(x) for k, x in v["map"].items()}
        return [value(x) for x in v] if isinstance(v, list) else v

    node = ROOT
    for type_name, field_name, args, given, index in steps:
        arguments = MappingProxyType({k: value(v) for k, v in args.items()})
        node = Node(type_name, field_name, arguments, frozenset(given), node, index)
    return node
