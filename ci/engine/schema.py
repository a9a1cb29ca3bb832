"""The GraphQL schema, read from the installed dagger-io client and kept on disk.

The client's generated classes hold every type, field, argument, default and description, so nothing of
Dagger's is copied here. Reading them takes half a second (they are parsed, not imported), so the result is
kept as JSON in the cache folder under the client's version; later sessions load that in 10 ms.

    schema = load()
    schema.types["Container"].fields["withExec"].args["args"].type    # "[String!]!"
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import SetupError

FORMAT = 7
"""Raised whenever what is written to disk changes."""

SCALARS = {"str": "String", "int": "Int", "float": "Float", "bool": "Boolean"}
BUILTIN = ("String", "Int", "Float", "Boolean", "ID")

# What the client's signatures do not tell: an object that may be null has the same Python type as one
# that may not. Source: the introspection answers of a 0.21.8 engine.
NULLABLE = {
    ("Container", "dockerHealthcheck"),
    ("Container", "stat"),
    ("Container", "up"),
    ("Directory", "stat"),
    ("File", "stat"),
    ("Query", "loadSDKConfigFromID"),
    ("Query", "loadStatFromID"),
    ("Service", "up"),
}

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
    schema = read(version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(_freeze(schema)))
        scratch.replace(path)
    except OSError:
        pass  # a read-only home costs half a second a session, nothing else
    return schema


def cache_folder() -> Path:
    """Where the engine keeps what may be made again: `$AGENT_LOOP_CACHE`, else `~/.cache/agent-loop`."""
    given = os.environ.get("AGENT_LOOP_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "agent-loop"


def read(version: str) -> Schema:
    """Read the schema from the client's source without importing it."""
    spec = importlib.util.find_spec("dagger")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError("dagger-io has no package folder. Install it again: pip install 'dagger-io==0.21.8'.")
    source = (Path(spec.submodule_search_locations[0]) / "client" / "gen.py").read_text()
    return Schema(version, _Reader(ast.parse(source)).types())


class _Reader:
    """One pass over the client's classes."""

    def __init__(self, tree: ast.Module) -> None:
        self.classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
        self.kinds = {name: self._kind(node) for name, node in self.classes.items()}

    def _kind(self, node: ast.ClassDef) -> str:
        bases = {b.id for b in node.bases if isinstance(b, ast.Name)}
        for base, kind in (
            ("Scalar", "SCALAR"),
            ("Enum", "ENUM"),
            ("Input", "INPUT_OBJECT"),
            ("Protocol", "INTERFACE"),
        ):
            if base in bases:
                return kind
        return "OBJECT" if bases & {"Type", "Root", "Interface"} and not node.name.startswith("_") else ""

    def types(self) -> dict[str, TypeDef]:
        found: dict[str, TypeDef] = {n: TypeDef(n, "SCALAR") for n in BUILTIN}
        for name, node in self.classes.items():
            doc = ast.get_docstring(node) or ""
            match self.kinds[name]:
                case "SCALAR":
                    found[name] = TypeDef(name, "SCALAR", doc)
                case "ENUM":
                    values = [(t.id, s.value.value) for t, s in _assignments(node)]
                    aliases = {n: str(v) for n, v in values if n != v}
                    found[name] = TypeDef(name, "ENUM", doc, values=tuple(n for n, _ in values), aliases=aliases)
                case "INPUT_OBJECT":
                    inputs = {a.name: a for a in self._inputs(node)}
                    found[name] = TypeDef(name, "INPUT_OBJECT", doc, inputs=inputs)
                case "OBJECT" | "INTERFACE" as kind:
                    source = self.classes.get(f"_{name}Client", node)  # an interface's fields are its client's
                    fields = {f.name: f for f in self._fields(source, name)}
                    fields["id"] = FieldDef("id", "ID!")
                    found[name] = TypeDef(name, kind, doc, fields=fields)
                case _:
                    pass
        found["Node"] = TypeDef("Node", "INTERFACE", "An object with an id.", fields={"id": FieldDef("id", "ID!")})
        query = dict(found["Query"].fields)
        query["node"] = FieldDef("node", "Node", {"id": Argument("id", "ID!")}, "Load any object from its id.")
        found["Query"] = TypeDef("Query", "OBJECT", found["Query"].doc, fields=query)
        return {n: self._with_interfaces(t, found) for n, t in found.items()}

    def _with_interfaces(self, t: TypeDef, found: Mapping[str, TypeDef]) -> TypeDef:
        if t.kind != "OBJECT":
            return t
        names = tuple(i for i in ("Exportable", "Node", "Syncer") if set(found[i].fields) <= set(t.fields))
        return TypeDef(t.name, t.kind, t.doc, t.fields, interfaces=names)

    def _inputs(self, node: ast.ClassDef) -> Iterator[Argument]:
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                has = item.value is not None
                yield Argument(
                    item.target.id,
                    self._type(item.annotation, node.name, argument=True),
                    self._default(item.value) if item.value is not None else None,
                    has and not (isinstance(item.value, ast.Constant) and item.value.value is None),
                )

    def _fields(self, node: ast.ClassDef, owner: str) -> Iterator[FieldDef]:
        for method in node.body:
            if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            name, sync = _selected(method)
            if name is None or method.returns is None:
                continue
            doc, arg_docs, deprecated = _split_doc(ast.get_docstring(method) or "")
            annotations = {a.arg: a.annotation for a in (*method.args.args, *method.args.kwonlyargs)}
            args: dict[str, Argument] = {}
            for call in (n for n in ast.walk(method) if isinstance(n, ast.Call)):
                if not (isinstance(call.func, ast.Name) and call.func.id == "Arg"):
                    continue
                arg_name = ast.literal_eval(call.args[0])
                python = next(n.id for n in ast.walk(call.args[1]) if isinstance(n, ast.Name) and n.id in annotations)
                annotation = annotations[python]
                assert annotation is not None
                default = self._default(call.args[2]) if len(call.args) > 2 else None
                has = len(call.args) > 2 and default is not None
                text = self._type(annotation, owner, argument=True)
                if len(call.args) > 2:
                    text = text.removesuffix("!")
                if owner == "Query" and re.fullmatch(r"load\w+FromID", name):
                    text = f"{name[4:-6]}ID!"
                wanted = self._object(annotation, owner) if base_name(text) == "ID" else ""
                args[arg_name] = Argument(arg_name, text, default, has, arg_docs.get(python, ""), wanted)
            text = "ID!" if sync else self._type(method.returns, owner)
            if (owner, name) in NULLABLE:
                text = text.removesuffix("!")
            yield FieldDef(name, text, args, doc, deprecated)

    def _object(self, node: ast.expr, owner: str) -> str:
        """The object type that an argument's annotation names, or nothing for a plain id."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self._object(ast.parse(node.value, mode="eval").body, owner)
        words = (n.id if isinstance(n, ast.Name) else getattr(n, "value", "") for n in ast.walk(node))
        names = [w for w in words if isinstance(w, str)]
        found = next((n for n in names if n == "Self" or self.kinds.get(n) in ("OBJECT", "INTERFACE")), "")
        return owner if found == "Self" else found

    def _default(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Attribute):  # an enum member
            return node.attr
        return ast.literal_eval(node)

    def _type(self, node: ast.expr, owner: str, *, argument: bool = False) -> str:
        """The GraphQL type of a Python annotation."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self._type(ast.parse(node.value, mode="eval").body, owner, argument=argument)
        if isinstance(node, ast.BinOp):
            sides = [s for s in (node.left, node.right) if not (isinstance(s, ast.Constant) and s.value is None)]
            return self._type(sides[0], owner, argument=argument).removesuffix("!")
        if isinstance(node, ast.Subscript):
            return f"[{self._type(node.slice, owner, argument=argument)}]!"
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else "Void"
        name = {"Self": owner, "Client": "Query"}.get(name, name)
        name = SCALARS.get(name, name)
        kind = self.kinds.get(name, "")
        if name.endswith("ID") and kind == "SCALAR":
            name = "ID"
        if argument and kind in ("OBJECT", "INTERFACE"):
            name = "ID"
        return f"{name}!"


def _assignments(node: ast.ClassDef) -> Iterator[tuple[ast.Name, Any]]:
    for item in node.body:
        if not (isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name)):
            continue
        if isinstance(item.value, ast.Constant) and item.targets[0].id != "__slots__":
            yield item.targets[0], item


def _selected(method: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str | None, bool]:
    """The GraphQL field that a client method asks for, and whether it is a `sync`."""
    for call in (n for n in ast.walk(method) if isinstance(n, ast.Call)):
        if not isinstance(call.func, ast.Attribute):
            continue
        if call.func.attr == "_select" and isinstance(call.args[0], ast.Constant):
            return str(call.args[0].value), False
        if call.func.attr == "execute_sync" and isinstance(call.args[1], ast.Constant):
            return str(call.args[1].value), True
    return None, False


def _split_doc(text: str) -> tuple[str, dict[str, str], str | None]:
    """A method's description, its parameters' descriptions, and why it is deprecated."""
    head, _, rest = text.partition("\nParameters\n----------\n")
    deprecated = None
    if ".. deprecated::" in head:
        head, _, why = head.partition(".. deprecated::")
        deprecated = " ".join(why.split())
    head = re.split(r"\n(?:Returns|Raises)\n-+\n", head)[0]
    rest = re.split(r"\n(?:Returns|Raises)\n-+\n", rest)[0]
    docs: dict[str, list[str]] = {}
    current = ""
    for line in rest.splitlines():
        if line and not line.startswith(" ") and line.endswith(":"):
            current = line[:-1]
            docs[current] = []
        elif current:
            docs[current].append(line[4:])
    return head.strip(), {k: "\n".join(v).strip() for k, v in docs.items()}, deprecated


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
