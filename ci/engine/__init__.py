"""The embedded engine: a Dagger session on plain BuildKit.

The seam that other parts build on:

- `Session` (`session.py`) is a session in this process: objects, HTTP server, options.

      with Session(workdir=...) as s:              # s.port, s.token, s.environment()
          ...                                      # any dagger-io client talks to it
      plan = Plan()
      with Session(plan=plan) as s: ...            # nothing is built; plan.leaves holds what would have been

  `s.find(id)` gives the node of an id, `s.get(node)` its value, `s.answer(query, variables)` runs a query
  without HTTP.
- `Node` (`graph.py`) is a call in the graph: `type`, `field`, `args` (values or nodes), `parent`; `chain()`,
  `path()`, `inputs()`, `id`, `key`. Secrets' plaintexts are `Hidden` arguments: no key, no text holds them.
- `field` (`registry.py`) registers the function of a field: `@field("Container", "withUser")` on
  `(ctx, parent, args) -> value`. `ctx.session`, `ctx.node`; `parent` is the object's value (`values.py`).
  `ci.engine.fields` registers what this engine serves (a Session imports it).
- `render` (`build/dockerfile.py`) writes a container or directory as a Dockerfile with its contexts.
- `schema.load()` has every type, field, argument, default and description of the installed client.

Everything is imported lazily: `import ci.engine` costs nothing, and nothing here imports dagger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import EngineError, ExecError, FieldError, Unsupported
    from .graph import Hidden, Node
    from .registry import Args, Call, field
    from .session import Leaf, Options, Plan, Session

__all__ = [
    "Args",
    "Call",
    "EngineError",
    "ExecError",
    "FieldError",
    "Hidden",
    "Leaf",
    "Node",
    "Options",
    "Plan",
    "Session",
    "Unsupported",
    "field",
]

_HOMES = {
    "errors": ("EngineError", "ExecError", "FieldError", "Unsupported"),
    "graph": ("Hidden", "Node"),
    "registry": ("Args", "Call", "field"),
    "session": ("Leaf", "Options", "Plan", "Session"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(name)
