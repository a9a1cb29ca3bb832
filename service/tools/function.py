"""Turns a typed Python function into a tool.

    @tool(idempotent=True)
    def area(width: float, height: float = 1.0) -> str:
        '''The area of a rectangle in square metres.'''
        return str(width * height)

    area.parameters   the JSON schema of `width` and `height`

The docstring is what the model reads; the schema comes from the annotations (pydantic's, so `Literal`, `Annotated`
with `Field(description=…)` and models work). A parameter annotated `ToolContext` is filled in by the loop and not
shown. Plain functions run in a worker thread, coroutines on the event loop. To ship a tool in a package of your own,
name it under the entry point group `agent_loop.tools`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_type_hints, overload

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from service.backends.base import JsonSchema
from service.tools.base import ToolContext, ToolError

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool made by `tool`; see there."""

    name: str
    description: str
    parameters: JsonSchema
    idempotent: bool
    timeout: float
    _function: Function
    _model: type[BaseModel]
    _context: str | None

    async def __call__(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Validate, call, and render: text as it is, anything else as JSON."""
        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolError(
                "; ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())
            ) from None
        values: dict[str, Any] = {name: getattr(checked, name) for name in type(checked).model_fields}
        if self._context:
            values[self._context] = context
        if inspect.iscoroutinefunction(self._function):
            result = await cast("Awaitable[Any]", self._function(**values))
        else:
            result = await anyio.to_thread.run_sync(lambda: self._function(**values), abandon_on_cancel=True)
        if isinstance(result, BaseModel):
            return result.model_dump_json()
        return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


@overload
def tool(function: Function, /) -> FunctionTool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    timeout: float = 60.0,
) -> Callable[[Function], FunctionTool]: ...
def tool(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    timeout: float = 60.0,
) -> FunctionTool | Callable[[Function], FunctionTool]:
    """Make a tool of a function, as a decorator with or without arguments.

    `idempotent`: after a crash in mid-call it may be called again; `timeout` in seconds. Raises TypeError for a
    parameter without an annotation: the model could not be told what to give.
    """

    def make(function: Function) -> FunctionTool:
        fields, context = _fields(function)
        called = name or function.__name__
        model = create_model(called, __config__=ConfigDict(extra="forbid"), **fields)
        schema = model.model_json_schema()
        schema.pop("title", None)
        for each in schema.get("properties", {}).values():
            each.pop("title", None)
        schema.setdefault("properties", {})
        text = description or inspect.getdoc(function) or called
        return FunctionTool(called, text, schema, idempotent, timeout, function, model, context)

    return make(function) if function is not None else make


def _fields(function: Function) -> tuple[dict[str, Any], str | None]:
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    context: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        place = f"parameter {parameter.name!r} of the tool {function.__name__!r}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"A tool needs named parameters: {place}. Spell them out.")
        if parameter.name not in hints:
            raise TypeError(f"A tool needs types: {place} has no annotation. Annotate it.")
        if hints[parameter.name] is ToolContext:
            context = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    return fields, context
