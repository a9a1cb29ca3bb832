"""Asking the session: chains of core fields as one query, and what went wrong as our errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import CallError, ExecFailed, PlainError
from .types import ENUM, LIST, OBJECT, TypeRef

Execute = Callable[[str], Mapping[str, Any]]
"""Runs one query; answers `{"data": …}` or `{"errors": […]}`, as the HTTP endpoint does."""


@dataclass(frozen=True)
class Field:
    """One field with its arguments as GraphQL literals."""

    name: str
    arguments: Mapping[str, str]

    def __str__(self) -> str:
        given = ", ".join(f"{name}: {text}" for name, text in self.arguments.items())
        return f"{self.name}({given})" if given else self.name


def literal(value: Any, ref: TypeRef) -> str:
    """A value in GraphQL's own notation; objects are given by their ids."""
    if value is None:
        return "null"
    if ref.kind == LIST:
        assert ref.element is not None
        return "[" + ", ".join(literal(v, ref.element) for v in value) + "]"
    if ref.kind == ENUM:
        return str(value)
    if ref.kind == OBJECT:
        return json.dumps(str(value))
    return json.dumps(value, ensure_ascii=False)


class Api:
    """The session as a caller sees it."""

    def __init__(self, execute: Execute):
        self._execute = execute

    def root(self, *fields: Field | str) -> Any:
        """The value of the last of a chain of fields that begins at the query. Raises CallError."""
        query = "".join(f"{{ {field} " for field in fields) + "}" * len(fields)
        return self._walk(self.ask(query), [str(f).partition("(")[0] for f in fields])

    def chain(self, type_name: str, ident: str, fields: Sequence[Field]) -> Any:
        """The answer of a chain that begins at an object; from a list on it keeps the shape that the query has."""
        inner = "".join(f"{{ {field} " for field in fields) + "}" * len(fields)
        data = self.ask(f"{{ node(id: {json.dumps(ident)}) {{ ... on {type_name} {inner} }} }}")
        return self._walk(data["node"], [f.name for f in fields])

    def ask(self, query: str) -> Any:
        """The data that answers a query. Raises CallError, ExecFailed for a command that failed."""
        answer = self._execute(query)
        if errors := answer.get("errors"):
            raise failure(str(errors[0].get("message", "")), errors[0].get("extensions") or {})
        return answer["data"]

    def _walk(self, value: Any, names: Sequence[str]) -> Any:
        for name in names:
            if value is None or isinstance(value, list):
                break
            value = value[name]
        return value


def failure(message: str, extensions: Mapping[str, Any], through_function: bool = False) -> CallError:
    """The error for what the session or a function reported.

    A message that came through a function ends with a trace number; one that the session gave stands as it is.
    """
    if extensions.get("_type") == "EXEC_ERROR":
        return ExecFailed(
            message,
            int(extensions.get("exitCode", 1)),
            str(extensions.get("stdout") or ""),
            str(extensions.get("stderr") or ""),
        )
    return CallError(message) if through_function else PlainError(message)
