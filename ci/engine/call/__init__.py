"""`agent-loop call`, `functions` and `check`: a module's functions as `dagger call` offers them.

Words become a chain of calls (`args`, `values`) over what the module offers (`core`), which is run (`invoke`, `load`)
and printed (`print`); `help` is what each level says of itself. `cli` has the commands; the functions here import it
when they are called.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """`agent-loop call`: see `cli.main`."""
    from ci.engine.ending import on_end
    from ci.engine.module.process import ahead

    ahead(argv)

    from . import cli

    on_end()
    return cli.main(argv)


def functions(argv: Sequence[str]) -> int:
    """`agent-loop functions`: see `cli.functions`."""
    from ci.engine.ending import on_end

    from . import cli

    on_end()
    return cli.functions(argv)


def check(argv: Sequence[str]) -> int:
    """`agent-loop check`: see `cli.check`."""
    from ci.engine.ending import on_end
    from ci.engine.module.process import ahead

    ahead(argv)

    from . import cli

    on_end()
    return cli.check(argv)
