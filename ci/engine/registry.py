"""Where a field of the schema meets the function that answers it.

    @field("Container", "withUser")
    def with_user(ctx: Call, parent: Container, args: Args) -> Container:
        return parent.with_(user=args["name"])

Adding a field is one such function in one of the files of `fields/` (or of any module that is imported
before a session opens). Names and arguments are the GraphQL ones; `args` holds every declared argument, the
ones not given with their defaults; arguments that are objects come as their values (`ctx.node.args` has them
as nodes). A function may return

- for a scalar: the value (None where the schema allows null);
- for an object: its value, any Python object, or a `Node` that stands in for it (an alias, a loaded id);
- for a list of objects: a list of values;
- or be a generator that yields what it needs from BuildKit (`needs.py`) and returns one of the above.
  All that one query needs is built together.

Raise `FieldError` to refuse. A field without a function is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .graph import Node
    from .session import Session

Args = Mapping[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Call:
    """What a field's function may know of the call: the session, and the node that the call makes."""

    session: Session
    node: Node

    @property
    def parent(self) -> Node:
        """The node of the object that the field was called on."""
        assert self.node.parent is not None
        return self.node.parent


@dataclass(frozen=True)
class Resolver:
    """A registered function with what the session must know of it."""

    run: Callable[[Call, Any, Args], Any]
    memo: bool
    effect: bool
    placeholder: Any


_RESOLVERS: dict[tuple[str, str], Resolver] = {}


def field(
    type_name: str,
    name: str,
    *,
    memo: bool = True,
    effect: bool = False,
    placeholder: Any = None,
) -> Callable[[F], F]:
    """Register the function of a field.

    `memo=False`: ask it anew every time (the default keeps an object's value for the session).
    `effect=True`: it changes something outside (exports, pushes), so a plan only notes it.
    `placeholder`: what a plan answers instead of building, or a function of the arguments that gives it; by
    default something of the field's type.
    A field has one function; a second is a fault that shows when it is imported.
    """

    def register(function: F) -> F:
        made = Resolver(function, memo, effect, placeholder)
        if (type_name, name) in _RESOLVERS:
            raise ValueError(f"{type_name}.{name} has a function already: {_RESOLVERS[type_name, name].run}")
        _RESOLVERS[type_name, name] = made
        return function

    return register


def resolver(type_name: str, name: str) -> Resolver | None:
    """The function of a field, or None."""
    return _RESOLVERS.get((type_name, name))


def registered() -> frozenset[tuple[str, str]]:
    """Every (type, field) that has a function."""
    return frozenset(_RESOLVERS)
