"""`agent-loop bases`: make and list base images without a registry."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from ci.engine.bases import store
from ci.engine.bases.build import build
from ci.engine.bases.errors import BasesError, BuildFailed, UnknownBase
from ci.engine.bases.recipes import DEFAULT, RECIPES


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="agent-loop bases",
        description="Base images made from Debian packages, for machines that reach no image registry.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="make bases that are missing or whose recipe changed")
    make.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: {', '.join(DEFAULT)}; one of {', '.join(RECIPES)}"
    )
    make.add_argument("--all", action="store_true", help="every base")
    make.add_argument("--arch", default=store.host_arch(), help="amd64 or arm64 (default: this machine's)")
    make.add_argument("--fresh", action="store_true", help="make them again with today's package versions")
    make.add_argument("--verbose", action="store_true", help="on failure, show the end of mmdebstrap's output")
    commands.add_parser("list", help="what there is, and which image reference it stands in for")
    return top


def main(argv: Sequence[str]) -> int:
    """Run the command line. Exit status: 0 done, 1 failed, 2 wrong words, 130 interrupted."""
    words = parser().parse_args(list(argv))
    if words.command == "list":
        return show()
    start = time.monotonic()
    names = list(RECIPES) if words.all else words.names or list(DEFAULT)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:5.1f} s] {text}", flush=True)

    try:
        for name in names:
            build(name, words.arch, fresh=words.fresh, say=say)
    except BasesError as error:
        print(f"agent-loop bases: {error}", file=sys.stderr)
        if words.verbose and isinstance(error, BuildFailed):
            print(error.output, file=sys.stderr)
        return 2 if isinstance(error, UnknownBase) else 1
    except OSError as error:
        print(f"agent-loop bases: {error.strerror}: {error.filename or store.root()}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("agent-loop bases: interrupted; bases made before are kept.", file=sys.stderr)
        return 130
    return 0


def show() -> int:
    """Print a line for every base: name, architecture, state, size, digest, references."""
    print(f"{'NAME':<14} {'ARCH':<6} {'STATE':<8} {'SIZE':>7}  {'DIGEST':<19}  STANDS IN FOR")
    for recipe in RECIPES.values():
        folder = store.root() / recipe.name
        arches = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        for arch in arches or [store.host_arch()]:
            record = store.read_record(recipe.name, arch)
            state = "missing" if not record else "ready" if record.recipe == recipe.digest(arch) else "outdated"
            size = f"{record.size / 1e6:.0f} MB" if record else "-"
            digest = record.digest[:19] if record else "-"
            names = ", ".join(recipe.references)
            print(f"{recipe.name:<14} {arch:<6} {state:<8} {size:>7}  {digest:<19}  {names}")
    return 0
