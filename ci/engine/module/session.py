"""A module opened in a session of ours, ready to be called.

types = registered(source, show)               # from disk, or by asking the module once
with opened(source, options, show) as module:
    module.functions.call("Probe", "hello", {"greeting": "hi"}, {})
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from ci.engine import notes
from ci.engine.fields.module import Calls, serve_module
from ci.engine.schema import cache_folder
from ci.engine.session import Options, Plan, Session

from .api import Api
from .calls import ModuleFunctions
from .errors import CallError, FunctionFailed
from .process import ready
from .registration import module_types
from .source import ModuleSource, environment, fingerprint
from .types import ModuleTypes

Show = Callable[[str], None]


@dataclass(frozen=True)
class OpenModule:
    """A session that serves a module, and the module's functions in it."""

    session: Session
    calls: Calls
    functions: ModuleFunctions

    @property
    def api(self) -> Api:
        def execute(query: str) -> Mapping[str, Any]:
            return self.session.answer(query)[1]

        return Api(execute)


@contextlib.contextmanager
def opened(
    source: ModuleSource, show: Show, options: Options | None = None, plan: Plan | None = None
) -> Generator[OpenModule]:
    """Open a session for a module and start its process; both end with the block."""
    with Session(options=options, plan=plan, say=show) as session:
        calls = serve_module(session, source.name, source.source)
        env = environment(source, session.port, session.token, session.scratch)
        with ready().begin(env, show) as process:
            session.answer("{__typename}")  # loads what answering takes while the process imports
            yield OpenModule(session, calls, ModuleFunctions(calls, process))


def registered(source: ModuleSource, show: Show) -> ModuleTypes:
    """What the module offers, kept on disk by the hash of its code. Raises CallError when it does not load."""
    path = cache_folder() / "modules" / f"{source.name}-{fingerprint(source)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return ModuleTypes.from_json(json.loads(path.read_text()))
    with opened(source, show, plan=Plan()) as module:
        types = _register(source, module)
    notes.keep(path, types.to_json())
    return types


def _register(source: ModuleSource, module: OpenModule) -> ModuleTypes:
    try:
        ident = module.functions.register()
    except CallError as error:
        message = f"Module does not load, {str(error).rstrip('.')}, {source.python_path}. Mend it, see the lines above."
        raise FunctionFailed(message) from None
    node = module.session.find(str(ident))
    if node is None:
        raise FunctionFailed(f"Module registered no types, {ident!r}, {source.python_path}. Look at its main object.")
    types = module_types(node)
    if source.main_object not in types.objects:
        raise FunctionFailed(f"Module has no object {source.main_object}, {source.python_path}. Name its class so.")
    return types
