"""Where base layouts live, and which image reference each stands in for.

$AGENT_LOOP_CACHE/bases/          (AGENT_LOOP_CACHE defaults to ~/.cache/agent-loop)
  index.json                      image reference -> layout name
  <name>/<arch>/                  an OCI image layout, plus record.json
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from ci.engine.bases.recipes import RECIPES

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Record:
    """What is known of a base that was made."""

    name: str
    arch: str
    recipe: str
    """The recipe's hash (`Recipe.digest`)."""
    digest: str
    """The image manifest's digest: `sha256:…`."""
    binary: str
    size: int
    """Bytes, unpacked."""
    packages: dict[str, str]
    """Every Debian package in it, with its version."""


def command(reference: str, arch: str) -> str:
    """The command that makes what stands in for an image reference on `arch`; empty where no recipe does."""
    names = [recipe.name for recipe in RECIPES.values() if reference in recipe.references]
    other = f" --arch {arch}" if arch != host_arch() else ""
    return f"agent-loop bases build {names[0]}{other}" if names else ""


def root() -> Path:
    """The folder of all bases."""
    cache = os.environ.get("AGENT_LOOP_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "agent-loop") / "bases"


def host_arch() -> str:
    """This machine's architecture in OCI's words (`amd64`, `arm64`)."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def layout(name: str, arch: str) -> Path:
    """The folder that holds the layout of base `name`, whether it was made yet or not."""
    return root() / name / arch


def read_record(name: str, arch: str) -> Record | None:
    """The record of a base that is there, or None; an unreadable one counts as not there."""
    try:
        return Record(**json.loads((layout(name, arch) / "record.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Write `record.json` into a layout's folder."""
    (folder / "record.json").write_text(json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")


def short_reference(reference: str) -> str:
    """An image reference without `docker.io/`, `library/` and digest: the key of `index.json`."""
    name = reference.partition("@")[0]
    return name.removeprefix("docker.io/").removeprefix("library/")


def references() -> dict[str, str]:
    """Image reference -> name of the base that stands in for it."""
    return {reference: recipe.name for recipe in RECIPES.values() for reference in recipe.references}


def resolve(reference: str, arch: str | None = None) -> Path | None:
    """The layout that stands in for `reference` on `arch` (default: this machine's), or None."""
    name = references().get(short_reference(reference))
    arch = arch or host_arch()
    return layout(name, arch) if name and read_record(name, arch) else None


def write_index() -> Path:
    """Write `index.json`, whole or not at all."""
    target = root() / "index.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(references(), indent=2, sort_keys=True) + "\n")
    partial.replace(target)
    return target
