"""Imports go one way, the tree says what it is, and nothing names this or any other machine."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("ci", "service", "trainer", "observability")
COMPOSITION_ROOT = ROOT / "ci" / "cli.py"

FORBIDDEN = {
    "ci/engine": {"ci.stack", "service", "trainer", "observability"},
    "ci/stack": {"service", "trainer"},
    "service": {"ci", "trainer", "observability"},
    "trainer": {"ci", "service", "observability"},
    "observability": {"ci", "service", "trainer"},
}


def imports(path: Path) -> set[str]:
    """The absolute module names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def inside(name: str, packages: set[str]) -> bool:
    """Whether a module is one of the packages or lies beneath one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_imports_go_one_way(part: str) -> None:
    """No part imports one that it must not know; only the command line's root knows them all."""
    files = [path for path in (ROOT / part).rglob("*.py") if "ci/sdk" not in str(path)]
    wrong = {
        str(path.relative_to(ROOT)): sorted(name for name in imports(path) if inside(name, FORBIDDEN[part]))
        for path in files
        if path != COMPOSITION_ROOT
    }
    assert files, f"no Python files under {part}"
    assert {path: names for path, names in wrong.items() if names} == {}


def test_the_dagger_module_needs_only_dagger_and_the_standard_library() -> None:
    """A real engine installs the module alone: anything else would break its loading."""
    known = set(sys.stdlib_module_names) | {"dagger", "agent_loop_ci"}
    files = list((ROOT / "ci" / "src").rglob("*.py"))
    wrong = {
        str(path.relative_to(ROOT)): sorted(name for name in imports(path) if name.split(".")[0] not in known)
        for path in files
    }
    assert files
    assert {path: names for path, names in wrong.items() if names} == {}


def test_every_module_says_what_it_is_for() -> None:
    """A newcomer reads a module's first line and knows whether to go on."""
    silent = [
        str(path.relative_to(ROOT))
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if "ci/sdk" not in str(path) and path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []
