"""Running a parsed call: load its arguments, call its functions in turn, evaluate what the last one gives.

Values of the module's own types travel as JSON and are called in the module's process; core objects travel as ids
and are chained by one query to the session. A list is followed member by member.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ci.engine.module.api import Api, Field, literal
from ci.engine.module.errors import CallError, UsageError
from ci.engine.module.names import camel, kebab, prefixed
from ci.engine.module.returned import returned
from ci.engine.module.types import LIST, OBJECT, VOID, Argument, Function, TypeRef

from .args import CallLine, Step
from .core import TypeCatalog
from .load import Loader
from .print import Handle
from .values import Address


class Functions(Protocol):
    """Calls a function of the module (see `module_calls`)."""

    def call(self, owner: str, name: str, parent: Any, arguments: Mapping[str, Any]) -> Any: ...


class Nothing:
    """What a function without a result gives."""


NOTHING = Nothing()
EXPORTABLE = frozenset({"Container", "Directory", "File", "Changeset"})


@dataclass(frozen=True)
class Saved:
    """An object that was written to a path instead of printed."""

    path: str


@dataclass(frozen=True)
class Located:
    """A core object that was made and not evaluated."""

    type: str
    ident: str


class Invocation:
    """One command line on one module and session.

    With `evaluate=False` objects are made and not evaluated: the result holds a `Located` for each core object, also
    for those that the module's own objects hold.
    """

    def __init__(
        self,
        module: str,
        catalog: TypeCatalog,
        api: Api,
        functions: Functions,
        loader: Loader,
        *,
        evaluate: bool = True,
    ):
        self._evaluate = evaluate
        self._made: dict[str, Any] = {}
        self._loaded: dict[int, tuple[Step, dict[str, Any]]] = {}
        self._module = module
        self._catalog = catalog
        self._api = api
        self._functions = functions
        self._loader = loader

    def run(self, line: CallLine, save_to: Path | None = None) -> Any:
        """Run a call and return its result: a JSON value, a Handle for each object, NOTHING, or Saved.

        An object that can be exported goes to `save_to` where that is given. Raises CallError.
        """
        main = self._catalog.main
        for step in line.steps:  # the module's process is still importing: read the host meanwhile
            if self._catalog.is_own(step.owner.name) and not step.function.is_field:
                self._inputs(step)
        state = self.construct(line.constructor)
        if not line.steps:
            return state
        return self._follow(state, TypeRef(OBJECT, main), line.steps, save_to)

    def construct(self, step: Step) -> Any:
        """The module's main object as JSON, made once for the same arguments."""
        inputs = self._inputs(step)
        key = json.dumps(inputs, sort_keys=True)
        if key not in self._made:
            self._made[key] = self._functions.call(self._catalog.main, "", None, inputs)
        return self._made[key]

    def _follow(self, value: Any, ref: TypeRef, steps: Sequence[Step], save_to: Path | None) -> Any:
        if ref.kind == LIST and ref.element is not None:
            return self._each(value, ref.element, steps, save_to)
        if value is None and ref.kind == OBJECT:
            return None
        if ref.kind == OBJECT and not self._catalog.is_own(ref.name):
            return self._core(ref.name, str(value), steps, save_to)
        if not steps:
            return self._final(value, ref)
        step = steps[0]
        if step.function.is_field:
            inner = (value or {}).get(step.function.name)
        else:
            inner = self._functions.call(ref.name, step.function.name, value, self._inputs(step))
        inner = returned(inner, step.function, self._catalog.module.objects)
        return self._follow(inner, step.function.returns, steps[1:], save_to)

    def _each(self, value: Any, element: TypeRef, steps: Sequence[Step], save_to: Path | None) -> Any:
        """A list: every member followed alone. A field of each is told by its name, as a query's answer is."""
        if self._evaluate and not steps and element.kind == OBJECT and not self._catalog.is_own(element.name):
            return [Handle.of(element.name, ident) for ident in value or []]
        members = [self._follow(member, element, steps, save_to) for member in value or []]
        named = steps and not any(isinstance(m, Handle) for m in members)
        return [_shaped(m, steps) for m in members] if named else members

    def _final(self, value: Any, ref: TypeRef) -> Any:
        if ref.kind == VOID:
            return NOTHING
        if ref.kind == OBJECT:
            return Handle.of(prefixed(self._module, ref.name), value) if self._evaluate else self._held(value, ref)
        return value

    def _held(self, value: Any, ref: TypeRef) -> Any:
        """The core objects that an object of the module's own holds, by field."""
        own = self._catalog.object(ref.name)
        fields = [f for f in own.functions.values() if f.is_field] if own and value else []
        return {f.name: self._follow(value.get(f.name), f.returns, (), None) for f in fields}

    def _core(self, type_name: str, ident: str, steps: Sequence[Step], save_to: Path | None) -> Any:
        """A chain of core fields from an object on, as one query, with the leaf that its end wants."""
        for i, step in enumerate(steps):
            if step.function.name == "sync":  # answers with an id, so what follows is another query
                synced = self._api.chain(type_name, ident, [self._field(s) for s in steps[: i + 1]])
                if isinstance(synced, str):
                    return self._core(step.function.returns.name, synced, steps[i + 1 :], save_to)
                raise CallError("A list cannot be chained on behind sync. Leave sync out: what follows evaluates it.")
        returns = steps[-1].function.returns if steps else TypeRef(OBJECT, type_name)
        fields = [self._field(step) for step in steps]
        inner = returns.innermost
        if inner.kind != OBJECT:
            value = self._api.chain(type_name, ident, fields)
            return NOTHING if inner.kind == VOID else value
        if save_to is not None and inner.name in EXPORTABLE and returns.kind == OBJECT:
            into = {"path": json.dumps(str(save_to))}
            if inner.name == "File":
                into["allowParentDirPath"] = "true"
            return Saved(str(self._api.chain(type_name, ident, [*fields, Field("export", into)])))
        if not self._evaluate:
            found = self._handles(self._api.chain(type_name, ident, [*fields, Field("id", {})]), inner.name, Located)
            return Located(inner.name, "") if found is None else found
        known = self._catalog.object(inner.name)
        leaf = "sync" if returns.kind == OBJECT and known and "sync" in known.functions else "id"
        return self._handles(self._api.chain(type_name, ident, [*fields, Field(leaf, {})]), inner.name)

    def _handles(self, value: Any, type_name: str, make: Callable[[str, Any], Any] = Handle.of) -> Any:
        match value:
            case None:
                return None
            case list():
                return [self._handles(member, type_name, make) for member in value]
            case dict():  # below a list the answer keeps its shape; the leaf is the only value of each level
                return self._handles(next(iter(value.values())), type_name, make)
            case _:
                return make(type_name, value)

    def _field(self, step: Step) -> Field:
        arguments = {
            name: literal(self._load(step, step.function.argument(name), value), step.function.argument(name).type)
            for name, value in step.given.items()
        }
        return Field(step.function.name, arguments)

    def _inputs(self, step: Step) -> dict[str, Any]:
        """Every declared argument of a function of the module, given or not; loaded once."""
        if id(step) not in self._loaded:
            self._loaded[id(step)] = step, {a.name: self._input(step, a) for a in step.function.arguments}
        return self._loaded[id(step)][1]

    def _input(self, step: Step, argument: Argument) -> Any:
        if argument.name in step.given:
            return self._load(step, argument, step.given[argument.name])
        if argument.default_path or argument.default_address:
            return self._guarded(step, argument, lambda: self._loader.default(argument))
        return json.loads(argument.default) if argument.default is not None else None

    def _load(self, step: Step, argument: Argument, value: Any) -> Any:
        if isinstance(value, list):
            return [self._load(step, argument, member) for member in value]
        if isinstance(value, Address):
            return self._guarded(step, argument, lambda: self._loader.load(value, argument.ignore))
        if argument.type.innermost.name == "Platform":
            self._loader.check_platform(kebab(argument.name), str(value))
        return value

    def _guarded(self, step: Step, argument: Argument, load: Any) -> Any:
        try:
            return load()
        except UsageError:
            raise
        except CallError as error:
            message = f'failed to get value for argument "{kebab(argument.name)}": {error}'
            raise UsageError(message, step.command) from None


def _shaped(value: Any, steps: Sequence[Step]) -> Any:
    """What a chain gave from a member of a list, in the shape of a query's answer: under the names of its fields."""
    for i, step in enumerate(steps):
        if step.function.returns.kind == LIST or (value is None and step.function.returns.kind == OBJECT):
            steps = steps[: i + 1]
            break
    for step in reversed(steps):
        value = {camel(step.function.name): value}
    return value


def check_steps(functions: Mapping[str, Function]) -> list[Function]:
    """The functions that are checks, by name."""
    return sorted((f for f in functions.values() if f.check), key=lambda f: kebab(f.name))
