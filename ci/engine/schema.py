"""The GraphQL schema, read from the installed dagger-io client and kept on disk.

The client's generated classes hold every type, field, argument, default and description, so nothing of
Dagger's is copied here. Reading them takes half a second (they are parsed, not imported), so the result is
kept as JSON in the cache folder under the client's version; later sessions load that in 10 ms.

    schema = load()
    schema.types["Container"].fields["withExec"].args["args"].type    # "[String!]!"
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import notes
from .errors import SetupError

FORMAT = 7
"""Raised whenever what is written to disk changes."""

DIRECTIVES = (
    "cache", "check", "defaultAddress", "defaultPath", "deprecated", "enumValue", "expectedType",
    "experimental", "generate", "ignorePatterns", "sourceMap", "up",
)  # fmt: skip


@dataclass(frozen=True)
class Argument:
    """An argument or input field: GraphQL type, default as JSON-able value (`has_default` tells null apart)."""

    name: str
    type: str
    default: Any = None
    has_default: bool = False
    doc: str = ""
    object: str = ""
    """Type of the object wanted, where the GraphQL type only says ID."""

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.type.endswith("!") and not self.has_default


@dataclass(frozen=True)
class FieldDef:
    """A field of an object."""

    name: str
    type: str
    args: Mapping[str, Argument] = field(default_factory=dict[str, Argument])
    doc: str = ""
    deprecated: str | None = None


@dataclass(frozen=True)
class TypeDef:
    """A named type; `kind` is OBJECT, INTERFACE, SCALAR, ENUM or INPUT_OBJECT."""

    name: str
    kind: str
    doc: str = ""
    fields: Mapping[str, FieldDef] = field(default_factory=dict[str, FieldDef])
    inputs: Mapping[str, Argument] = field(default_factory=dict[str, Argument])
    values: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    """Enum members that are another name of a value, with the value."""


@dataclass(frozen=True)
class Schema:
    """All types by name."""

    version: str
    types: Mapping[str, TypeDef]

    def field(self, type_name: str, name: str) -> FieldDef | None:
        """The field of an object type, or None."""
        found = self.types.get(type_name)
        return found.fields.get(name) if found else None


def base_name(type_text: str) -> str:
    """`[Label!]!` is a list of `Label`: the name inside."""
    return type_text.strip("[]!")


def is_list(type_text: str) -> bool:
    """Whether a GraphQL type is a list."""
    return type_text.startswith("[")


def load(cache: Path | None = None) -> Schema:
    """The schema of the installed client, from disk where it was read before.

    `cache` is the folder for it (default `$AGENT_LOOP_CACHE/schema`). Raises SetupError without dagger-io.
    """
    try:
        version = importlib.metadata.version("dagger-io")
    except importlib.metadata.PackageNotFoundError as none:
        raise SetupError("dagger-io is not installed. Install it: pip install 'agent-loop[ci]'.") from none
    folder = cache or cache_folder() / "schema"
    path = folder / f"{version}-{FORMAT}.json"
    try:
        return _revive(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError):
        pass
    from .client import read  # only where nothing is kept yet

    schema = read(version)
    notes.keep(path, _freeze(schema))
    return schema


def cache_folder() -> Path:
    """Where the engine keeps what may be made again: `$AGENT_LOOP_CACHE`, else `~/.cache/agent-loop`."""
    given = os.environ.get("AGENT_LOOP_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "agent-loop"


def _freeze(schema: Schema) -> dict[str, Any]:
    def arg(a: Argument) -> list[Any]:
        return [a.name, a.type, a.default, a.has_default, a.doc, a.object]

    return {
        "version": schema.version,
        "types": [
            [
                t.name, t.kind, t.doc,
                [[f.name, f.type, [arg(a) for a in f.args.values()], f.doc, f.deprecated] for f in t.fields.values()],
                [arg(a) for a in t.inputs.values()], t.values, t.interfaces, dict(t.aliases),
            ]
            for t in schema.types.values()
        ],
    }  # fmt: skip


def _revive(data: Mapping[str, Any]) -> Schema:
    types: dict[str, TypeDef] = {}
    for name, kind, doc, fields, inputs, values, interfaces, aliases in data["types"]:
        types[name] = TypeDef(
            name,
            kind,
            doc,
            {f[0]: FieldDef(f[0], f[1], {a[0]: Argument(*a) for a in f[2]}, f[3], f[4]) for f in fields},
            {a[0]: Argument(*a) for a in inputs},
            tuple(values),
            tuple(interfaces),
            aliases,
        )
    return Schema(data["version"], types)
