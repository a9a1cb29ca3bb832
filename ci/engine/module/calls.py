"""Calling functions of a module: the session says what to do, the module's process does it, the session hears back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ci.engine.fields.module import Calls, FunctionCall

from .api import failure
from .errors import FunctionFailed
from .process import ModuleProcess
from .registration import error_value


class ModuleFunctions:
    """The functions of one module in one session."""

    def __init__(self, calls: Calls, process: ModuleProcess):
        self._calls = calls
        self._process = process

    def register(self) -> Any:
        """Let the module register its types; gives the id of the module object that it built."""
        return self._serve(FunctionCall())

    def call(self, owner: str, name: str, parent: Any, arguments: Mapping[str, Any]) -> Any:
        """Call a function (`""`: the constructor) on an object of the module and return its JSON value.

        `parent` and `arguments` are JSON values with objects as ids. Raises FunctionFailed when the function
        raised or its process died, ExecFailed when a command in a container failed inside of it.
        """
        return self._serve(
            FunctionCall(owner, name, encoded(parent), {key: encoded(value) for key, value in arguments.items()})
        )

    def _serve(self, wanted: FunctionCall) -> Any:
        self._calls.current = wanted
        status = self._process.serve()
        self._calls.current = None
        if wanted.error is not None:
            message, values = error_value(wanted.error)
            raise failure(message, {k: json.loads(v) for k, v in values.items()}, through_function=True)
        if not wanted.answered:
            how = "its process ended" if status is None else f"its process gave status {status}"
            said = self._process.last_words() if status is None else ""
            raise FunctionFailed(f"The module gave no answer: {how}{': ' + said if said else ''}.")
        return wanted.value


def encoded(value: Any) -> str:
    """A JSON text as the engine writes it: no spaces, sorted keys, whole numbers without a point."""
    return json.dumps(whole(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def whole(value: Any) -> Any:
    """JSON knows one kind of number: a float without a fraction is written without a point."""
    match value:
        case float() if value.is_integer() and abs(value) < 1e21:
            return int(value)
        case list():
            return [whole(v) for v in value]
        case dict():
            return {k: whole(v) for k, v in value.items()}
        case _:
            return value
