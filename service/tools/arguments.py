"""Checks what a model wrote as a tool call's arguments, and says what is wrong in words it can act on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from service.backends.base import JsonSchema
from service.tools.base import ToolError

MAX_CHARS = 256 * 1024
"""Longest argument text looked at."""


def parse(text: str, schema: JsonSchema) -> dict[str, Any]:
    """The arguments in `text` (JSON; empty means none) if they fit `schema`.

    Raises ToolError with one sentence for the model: the place, what is wrong and what is wanted.
    """
    if len(text) > MAX_CHARS:
        raise ToolError(f"The arguments are too long: {len(text)} characters; {MAX_CHARS} are allowed.")
    try:
        value: Any = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"The arguments are not valid JSON: {error}. Send one JSON object.") from None
    if not isinstance(value, dict):
        raise ToolError(f"The arguments must be a JSON object, not {type(value).__name__}.")
    arguments = cast("dict[str, Any]", value)
    problem = check(arguments, schema)
    if problem:
        raise ToolError(f"The arguments do not fit the schema: {problem.rstrip('.')}.")
    return arguments


def check(value: Any, schema: JsonSchema) -> str | None:
    """What is wrong with `value` by `schema`, as a sentence; None if nothing is. A broken schema checks nothing."""
    try:
        error = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except (SchemaError, RecursionError, TypeError):
        return None
    if error is None:
        return None
    place = "/".join(str(part) for part in error.absolute_path)
    message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
    return f"{place}: {message}" if place else message


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    parsed: Mapping[str, Any] = json.loads(schema)
    Draft202012Validator.check_schema(parsed)
    return Draft202012Validator(parsed)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
