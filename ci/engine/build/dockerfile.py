"""Dockerfile text: quoting, stages, and containers or directories written as one.

    rendered = render(value, session)      # value: Container or Directory
    rendered.text, rendered.contexts, rendered.notes

`lowering.py` turns file systems into stages; here is what a line looks like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ci.engine.errors import FieldError
from ci.engine.files.tree import Tree

if TYPE_CHECKING:
    from ci.engine.session import Session
    from ci.engine.values import Container, Directory


PLACE = "AGENT_LOOP_AT_"
"""How variables begin that stand for parts of a mount's path; a step does not see them (`tools/exec.sh`)."""


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
    """A `--mount=` option of RUN; where `placed` finds variables in it, their ARG lines go before the RUN.

    Raises FieldError for a value of several lines, which no form can hold.
    """
    parts: list[str] = []
    for name, value in options.items():
        key = name.rstrip("_").replace("_", "")
        if value is True:
            parts.append(key)
        elif value:
            parts.append(_field(f"{key}=", value))
    return "--mount=" + ",".join(parts)


def _field(start: str, value: str) -> str:
    """One field, which is read three times: as a part of the line, of comma-separated values, and for variables."""
    if re.search(r"[\r\n]", value):
        raise FieldError(f"A mount with a line end in its path, {value!r}, cannot be made. Name the path otherwise.")
    text = start + re.sub(r"[^\x00-\x7f]+", _variable, re.sub(r"([\\'\"$])", r"\\\1", value))
    if re.search('[,"]', text):
        text = '"' + text.replace('"', '""') + '"'
    return re.sub(r"([\\'\"\s])", r"\\\1", text)


def _variable(found: re.Match[str]) -> str:
    """A variable instead of characters beyond ASCII: BuildKit takes the bytes of a flag for characters."""
    return f"${{{PLACE}{found[0].encode().hex()}}}"


def placed(mounts: Iterable[str]) -> list[str]:
    """ARG lines for the variables that `mount` put into options; a variable's name is its value in hexadecimal."""
    names = re.findall(rf"\$\{{{PLACE}((?:[0-9a-f]{{2}})+)\}}", " ".join(mounts))
    return [f"ARG {PLACE}{n}={quote(bytes.fromhex(n).decode(errors='replace'))}" for n in dict.fromkeys(names)]
