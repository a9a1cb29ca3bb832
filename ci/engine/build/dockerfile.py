"""Dockerfile text: quoting, stages, and containers or directories written as one.

    rendered = render(value, session)      # value: Container or Directory
    rendered.text, rendered.contexts, rendered.notes

`lowering.py` turns file systems into stages; here is what a line looks like.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ci.engine.files.tree import Tree

if TYPE_CHECKING:
    from ci.engine.session import Session
    from ci.engine.values import Container, Directory


@dataclass
class Stage:
    """One stage: its name, what it is FROM, its instructions."""

    name: str
    base: str
    lines: list[str] = field(default_factory=list[str])
    platform: str = ""

    def text(self) -> str:
        """The stage as Dockerfile text."""
        platform = f"--platform={self.platform} " if self.platform else ""
        return "\n".join([f"FROM {platform}{self.base} AS {self.name}", *self.lines]) + "\n"


@dataclass(frozen=True)
class Context:
    """A named build context: a tree to be written into a folder, or an address that BuildKit knows."""

    name: str
    tree: Tree | None = None
    address: str = ""
    label: str = ""


@dataclass(frozen=True)
class Rendered:
    """A Dockerfile with what it needs beside it."""

    text: str
    target: str
    contexts: tuple[Context, ...]
    files: tuple[tuple[str, Tree], ...]
    """Folders of the main build context, by path."""
    secrets: tuple[str, ...]
    """Ids that `--secret id=...` must give."""
    notes: tuple[str, ...]
    """What a plain build does otherwise than the engine."""

    def write(self, folder: Path) -> None:
        """Write Dockerfile, context folders and files into a folder: `docker buildx build` builds it from there."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").write_text(self.text)
        for path, tree in self.files:
            tree.write(folder / path, link=False)
        for context in self.contexts:
            if context.tree is not None:
                context.tree.write(folder / "contexts" / context.name, link=False)

    def command(self, folder: str = ".") -> list[str]:
        """The `docker buildx build` command line for what `write` wrote."""
        words = ["docker", "buildx", "build", "--target", self.target]
        for context in self.contexts:
            where = context.address or f"{folder}/contexts/{context.name}"
            words += ["--build-context", f"{context.name}={where}"]
        for secret in self.secrets:
            words += ["--secret", f"id={secret}"]
        return [*words, folder]


def render(value: Container | Directory, session: Session) -> Rendered:
    """A container (with its configuration) or directory as a plain Dockerfile, without the engine's own tools.

    Nothing is built. Raises FieldError for what a Dockerfile cannot say.
    """
    from ci.engine.values import Container

    from .lowering import Lowering

    lowering = Lowering(session, plain=True)
    if isinstance(value, Container):
        target = lowering.image(value)
    else:
        from ci.engine.reading import within

        target = lowering.target(within(value.fs, value.path))
    return lowering.rendered(target)


# Words of a Dockerfile


def quote(text: str) -> str:
    """A value in double quotes: of ENV, LABEL, WORKDIR, USER."""
    for char in ("\\", '"', "$"):
        text = text.replace(char, "\\" + char)
    return f'"{text}"'


def words(items: list[str] | tuple[str, ...]) -> str:
    """A JSON array: the exec form."""
    return json.dumps(list(items), ensure_ascii=False)


def paths(source: str, target: str) -> str:
    """Source and target of a COPY; nothing in them is a pattern, a variable or a quote."""
    return words([_escaped(_plain(source)), _escaped(target)])


def _plain(source: str) -> str:
    """A pattern that matches a path and nothing else.

    BuildKit reads a path as a pattern from its first part with a star, a question mark or a bracket on; only from there
    is a backslash anything but itself.
    """
    parts = source.split("/")
    first = next((i for i, part in enumerate(parts) if set(part) & set("[*?")), len(parts))
    return "/".join(parts[:first] + [re.sub(r"([*?\[])", r"[\1]", p.replace("\\", "\\\\")) for p in parts[first:]])


def _escaped(text: str) -> str:
    """A word that the Dockerfile's own reading of quotes, backslashes and variables leaves as it is."""
    return re.sub(r"([\\'\"$])", r"\\\1", text)


def mount(**options: str | bool | None) -> str:
    """A `--mount=` option of RUN."""
    parts: list[str] = []
    for name, value in options.items():
        key = name.rstrip("_").replace("_", "")
        if value is True:
            parts.append(key)
        elif value:
            text = f"{key}={value}".replace("$", r"\\\$")  # read twice: as a word of the line, then for variables
            parts.append(f'"{text}"' if any(c in text for c in " \t") else text)
    return "--mount=" + ",".join(parts)
