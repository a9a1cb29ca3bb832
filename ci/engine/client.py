"""Reads the schema out of the installed dagger-io client: its generated classes are parsed, never imported."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import SetupError
from .schema import Argument, FieldDef, Schema, TypeDef, base_name

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
