"""The suite can be collected in the test image: what its files import at their top is in the image's locked set."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from agent_loop_ci import checks

from tests.ci.module.conftest import ROOT

OURS = ("ci", "service", "observability", "trainer", "tests")
MODULES = {"agent_loop_ci": ROOT / "ci" / "src" / "agent_loop_ci"}


def normal(name: str) -> str:
    """A distribution's name as the lock files write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def file_of(module: str) -> Path | None:
    """The file of a module of ours, or None."""
    first, _, rest = module.partition(".")
    base = MODULES.get(first, ROOT / first) / rest.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def imports(path: Path) -> set[str]:
    """Modules that a file imports when it is imported itself; not those under TYPE_CHECKING or in functions."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    found: set[str] = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            near = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*near, *([node.module] if node.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            waiting += [*node.body, *node.orelse]
        elif isinstance(node, ast.ClassDef | ast.With):
            waiting += node.body
    return found


def foreign(start: Path, seen: dict[Path, set[str]]) -> set[str]:
    """Names of others' top-level packages that importing a file of ours brings in."""
    if start in seen:
        return seen[start]
    seen[start] = set()
    names: set[str] = set()
    for module in imports(start):
        if (found := file_of(module)) is not None:
            names |= foreign(found, seen)
        elif module.split(".")[0] not in (*OURS, *MODULES):
            names.add(module.split(".")[0])
    seen[start] = names
    return names


def test_the_image_has_what_the_collected_files_import() -> None:
    """One missing package fails the whole suite there, before its first test; `make test-fast` says it first."""
    lines = (ROOT / "requirements" / "test.txt").read_text().splitlines()
    locked = {normal(line.split("==")[0].partition("[")[0]) for line in lines if re.match(r"[a-zA-Z0-9]", line)}
    distributions = packages_distributions()
    missing: dict[str, list[str]] = {}
    files = [p for p in (ROOT / "tests").rglob("*.py") if p.name.startswith("test_") or p.name == "conftest.py"]
    assert len(files) > 50
    for path in files:
        name = path.relative_to(ROOT)
        if any(name.is_relative_to(other) for other in checks.ELSEWHERE):
            continue
        for package in foreign(path, {}) - set(sys.stdlib_module_names) - {"__future__"}:
            if not {normal(d) for d in distributions.get(package, [package])} & locked:
                missing.setdefault(str(name), []).append(package)
    assert missing == {}, "Lock it for tests (pyproject.toml), import it inside the test, or add the file to ELSEWHERE."
