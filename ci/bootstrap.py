"""Make `.venv` from nothing: `python3 -m ci.bootstrap host|dev`. Standard library only, safe to interrupt.

pip brings in the hash-locked uv, uv brings in the hash-locked set, and a stamp in `.venv` remembers the set's content,
so that a second run with nothing changed does nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)
PACKAGES = ("ci", "observability", "service", "trainer")


class BootstrapError(Exception):
    """Something is missing that this program cannot make; the message says what to do."""


def run(*command: str | Path) -> None:
    """Run one step with its output shown. Raises BootstrapError with the command when it fails."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise BootstrapError(f"'{' '.join(str(w) for w in command)}' ended with {done.returncode}; see above")


def stamp(name: str) -> tuple[Path, str]:
    """The stamp file of a set and the text it holds when `.venv` is up to date."""
    locked = (ROOT / "requirements" / f"{name}.txt").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    return VENV / f".{name}-installed", hashlib.sha256(locked + sys.version.encode()).hexdigest()


def main(argv: list[str]) -> int:
    """Install the named set. Exit 0 done or nothing to do; 1 failed; 2 wrong words."""
    if len(argv) != 1 or not (ROOT / "requirements" / f"{argv[0]}.txt").is_file():
        names = sorted(p.stem for p in (ROOT / "requirements").glob("*.txt"))
        print(
            f"bootstrap: expected one of {', '.join(names)}; got {' '.join(argv) or 'nothing'}",
            file=sys.stderr,
        )
        return 2
    if sys.version_info < OLDEST:
        print(f"bootstrap: Python {sys.version.split()[0]} is too old; use 3.11 or later", file=sys.stderr)
        return 1
    name = argv[0]
    mark, wanted = stamp(name)
    if mark.is_file() and mark.read_text() == wanted:
        return 0
    python = VENV / "bin" / "python"
    try:
        if not python.exists():
            print("Making .venv", flush=True)
            run(sys.executable, "-m", "venv", VENV)
        uv = VENV / "bin" / "uv"
        if not uv.exists():
            run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", "requirements/uv.txt")
        print(f"Installing requirements/{name}.txt into .venv", flush=True)
        os.environ["VIRTUAL_ENV"] = str(VENV)
        # Compiled once here: where Python may not keep bytecode, every command would compile all that it imports.
        compiled = ("--quiet", "--compile-bytecode", "--require-hashes")
        run(uv, "pip", "install", *compiled, "-r", f"requirements/{name}.txt")
        run(uv, "pip", "install", "--quiet", "--no-deps", "--editable", ROOT)
        run(python, "-m", "compileall", "-q", *(ROOT / package for package in PACKAGES))
    except BootstrapError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bootstrap: interrupted; run it again to go on", file=sys.stderr)
        return 130
    mark.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
