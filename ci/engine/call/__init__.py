"""`agent-loop call`, `functions` and `check`: a module's functions as `dagger call` offers them.

Words become a chain of calls (`args`, `values`) over what the module offers (`core`), which is run (`invoke`, `load`)
and printed (`print`); `help` is what each level says of itself. `cli` has the commands; the functions here import it
when they are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType


def main(argv: Sequence[str]) -> int:
    """`agent-loop call`: see `cli.main`."""
    return _ready(argv).main(argv)


def functions(argv: Sequence[str]) -> int:
    """`agent-loop functions`: see `cli.functions`."""
    return _ready().functions(argv)


def check(argv: Sequence[str]) -> int:
    """`agent-loop check`: see `cli.check`."""
    return _ready(argv).check(argv)


def _ready(calling: Sequence[str] | None = None) -> ModuleType:
    """The commands, imported beside the module's process where words that call it are given."""
    from ci.engine.module.process import ahead

    if calling is not None:
        ahead(calling)
    from . import cli

    return cli
