"""A Dagger Python module on disk: where it is, what it is called, how its process is started, what identifies it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import CallError, PlainError
from .names import pascal
from .process import inherited

FORMAT = 1
"""Changes when what is kept of a registration changes."""

_NOT_SOURCE = {".git", ".venv", "__pycache__", "sdk", ".pytest_cache", ".ruff_cache", "node_modules"}


@dataclass(frozen=True)
class ModuleSource:
    """A module: `root` holds its dagger.json, `source` its Python project, `context` is what DefaultPath may read."""

    name: str
    root: Path
    source: Path
    context: Path
    package: str
    entry_point: str

    @property
    def main_object(self) -> str:
        return pascal(self.name)

    @property
    def python_path(self) -> Path:
        """The folder that the module's package is imported from."""
        src = self.source / "src"
        return src if src.is_dir() else self.source

    def context_path(self, default: str) -> Path:
        """The folder or file that DefaultPath names: absolute counts from the context, relative from `root`.

        Raises CallError when it leaves the context.
        """
        path = self.context / default.lstrip("/") if default.startswith("/") else self.root / default
        resolved = Path(os.path.normpath(path))
        if not resolved.is_relative_to(self.context):
            raise CallError(f'path "{default}" is outside of the module\'s context {self.context}')
        return resolved


def find(folder: str | None = None) -> ModuleSource:
    """The module in `folder`, or the one whose dagger.json is nearest above the working folder.

    Raises CallError when there is none, or it is none that can be run here.
    """
    root = _root(folder)
    path = root / "dagger.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        name = str(config["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlainError(f"No module description, {error}, {path}. Give it a name, an sdk and a source.") from None
    sdk = config.get("sdk")
    kind = str(sdk.get("source", "") if isinstance(sdk, dict) else sdk or "")
    if kind.partition("@")[0] != "python":
        raise PlainError(f"Module is not written in Python, sdk {kind or 'none'}, {path}. Run it with 'dagger call'.")
    if config.get("dependencies"):
        raise PlainError(f"Module dependencies need a Dagger engine, {path}. Run it with 'dagger call'.")
    source = (root / str(config.get("source", "."))).resolve()
    project = _project(source)
    package = str(project.get("name", "main")).replace("-", "_").replace(".", "_").lower()
    entries = project.get("entry-points", {}).get("dagger.mod", {})
    return ModuleSource(
        name, root, source, _context(root), package, str(entries.get("main_object", "")) if entries else ""
    )


def _root(folder: str | None) -> Path:
    if folder is not None:
        path = Path(folder)
        if not path.exists():
            raise CallError(
                f'query module objects: loading modules: loading extra module "{folder}": '
                f'resolving module source "{folder}": local path "{folder}" does not exist'
            )
        return (path.parent if path.name == "dagger.json" else path).resolve()
    here = Path.cwd()
    for candidate in (here, *here.parents):
        if (candidate / "dagger.json").is_file():
            return candidate
    raise PlainError(
        f"No module, no dagger.json, {here} or above. Go to a module's folder or name one with '-m FOLDER'."
    )


def _context(root: Path) -> Path:
    """The git root above, else the module's own folder."""
    return next((p for p in (root, *root.parents) if (p / ".git").exists()), root)


def _project(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((source / "pyproject.toml").read_text()).get("project", {})
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise PlainError(
            f"Module's project file cannot be read, {error}, {source / 'pyproject.toml'}. Mend it."
        ) from None


def fingerprint(source: ModuleSource) -> str:
    """What identifies a module's registration: its code, its name, the SDK's version and Python's."""
    told = (FORMAT, metadata.version("dagger-io"), sys.version, source.name, source.package, source.entry_point)
    digest = hashlib.sha256(repr(told).encode())
    for path in _files(source):
        digest.update(f"\0{os.path.relpath(path, source.root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _files(source: ModuleSource) -> Iterator[Path]:
    yield source.root / "dagger.json"
    if (project := source.source / "pyproject.toml").exists():
        yield project
    for folder, names, files in os.walk(source.python_path):
        names[:] = sorted(n for n in names if n not in _NOT_SOURCE and not n.endswith(".egg-info"))
        yield from (Path(folder) / name for name in sorted(files) if not name.endswith(".pyc"))


def environment(source: ModuleSource, port: int, token: str, scratch: Path) -> dict[str, str]:
    """The environment of the module's process. `scratch` is a folder that may hold its entry point's description."""
    paths = [str(source.python_path)]
    if source.entry_point:
        paths.insert(0, str(_describe_entry_point(source, scratch)))
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    return inherited() | {
        "DAGGER_SESSION_PORT": str(port),
        "DAGGER_SESSION_TOKEN": token,
        "DAGGER_MODULE": source.name,
        "DAGGER_MAIN_OBJECT": source.main_object,
        "DAGGER_DEFAULT_PYTHON_PACKAGE": source.package,
        "OTEL_SDK_DISABLED": "true",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
    }


def _describe_entry_point(source: ModuleSource, scratch: Path) -> Path:
    """Say what an installed module's metadata would say, so that its own entry point is found uninstalled."""
    folder = scratch / "entry-point"
    info = folder / "agent_loop_called_module-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: agent-loop-called-module\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[dagger.mod]\nmain_object = {source.entry_point}\n")
    return folder
