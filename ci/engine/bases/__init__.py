"""Base images made from the distribution's own packages, for machines that reach no image registry.

`recipes.py` says what each base holds, `apt.py` where this machine gets Debian packages, `oci.py` how a
root file system becomes an OCI image layout, `store.py` where layouts live and which image reference each
stands in for, `build.py` makes them, `cli.py` is `agent-loop bases`.
"""

from ci.engine.bases.store import resolve

__all__ = ["app", "resolve"]


def app(argv: list[str]) -> int:
    """`agent-loop bases …`: see `cli.py`."""
    from ci.engine.bases.cli import main

    return main(argv)
