"""Help pages and listings, laid out as Dagger's command line lays them out. Pure: values in, text out.

What the layout must be is recorded (module-protocol, "Listing and help"): required flags first, each group by
name; a description stands on a line of its own unless the flag is required; defaults and `[required]` follow it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from ci.engine.module.errors import PROGRAM
from ci.engine.module.names import kebab
from ci.engine.module.types import ENUM, LIST, OBJECT, Argument, Function, ObjectType, TypeRef

from . import values as values
from .args import OPTIONS, CallLine, Catalog, next_object, offered, unsupported

MINIMUM_NAME_WIDTH = 11
GAP = 3


def functions_page(main: ObjectType) -> str:
    """What `functions` prints: every callable word with the first line of its description."""
    rows = [(name, first_line(f.description)) for name, f in offered(main).items()]
    skipped = sorted(kebab(f.name) for f in main.functions.values() if unsupported(f))
    if main.constructor and main.constructor.arguments:
        skipped = sorted([*skipped, "with"])  # the engine's own field for constructor arguments
    text = table(("Name", "Description"), rows)
    if skipped:
        text += f"\nSkipped {len(skipped)} function(s) with unsupported types: {', '.join(skipped)}\n"
    return text


def checks_page(module: str, main: ObjectType) -> str:
    """What `check -l` prints."""
    checks = sorted((f"{kebab(module)}:{kebab(f.name)}", f) for f in main.functions.values() if f.check)
    return table(("Name", "Description"), [(name, first_line(f.description)) for name, f in checks])


def table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """Two columns, the first as wide as its widest cell and three spaces."""
    lines = [head, *rows]
    width = max(len(name) for name, _ in lines) + GAP
    return "".join(f"{name:<{width}}{text}\n" for name, text in lines)


def help_page(line: CallLine, catalog: Catalog) -> str:
    """The page of what the last word names: a function, or the module itself."""
    step, top = line.last, not line.steps
    main = catalog.object(catalog.main)
    target = main if top else next_object(step.function.returns, catalog)
    functions = offered(target) if target else {}
    arguments = [a for a in step.function.arguments if values.supported(a.type)]
    description = (main.description if main else "") if top else step.function.description
    usage = f"  {step.command}"
    if top:
        usage += " [options]"
    elif arguments:
        usage += " [arguments]"
    if functions:
        usage += " <function>"
    parts = [description or "-", f"USAGE\n{usage}"]
    if functions:
        parts.append("FUNCTIONS\n" + "\n".join(_function_rows(functions)))
    if arguments:
        parts.append("ARGUMENTS\n" + flag_usages(arguments, catalog))
    if top:
        parts.append("OPTIONS\n" + _options())
    if functions:
        parts.append(f'Use "{step.command} [function] --help" for more information about a command.')
    return "\n\n".join(parts) + "\n"


def first_line(description: str) -> str:
    """The summary shown in lists: the first line, `-` where there is none."""
    return description.strip().split("\n", 1)[0] or "-"


def _function_rows(functions: dict[str, Function]) -> list[str]:
    width = max(MINIMUM_NAME_WIDTH, *(len(name) for name in functions)) + GAP
    return [f"  {name:<{width}}{first_line(f.description)}" for name, f in functions.items()]


def flag_usages(arguments: Iterable[Argument], catalog: Catalog) -> str:
    """The block under ARGUMENTS, without a final newline."""
    ordered = sorted(arguments, key=lambda a: (not a.required, kebab(a.name)))
    cells = [_flag_cells(a, catalog) for a in ordered]
    column = max(len(left) for left, _ in cells) + GAP
    rows = [f"{left:<{column}}{right}".replace("\n", "\n" + " " * column) for left, right in cells]
    return "\n".join(rows).rstrip()


def _flag_cells(argument: Argument, catalog: Catalog) -> tuple[str, str]:
    """The flag with its type, and what stands right of it."""
    description = _description(argument, catalog)
    usage = f"\n{description}\n" if description else ""
    if argument.required:
        usage = f"{usage} [required]".strip()
    shown, usage = _unquote(usage, type_word(argument.type, catalog))
    default = _default(argument)
    return f"      --{kebab(argument.name)}{' ' + shown if shown else ''}", usage + (
        f" (default {default})" if default else ""
    )


def _description(argument: Argument, catalog: Catalog) -> str:
    """Its own, or its enum's; a required argument of a core type falls back on the type's."""
    if argument.description:
        return argument.description.strip()
    if argument.type.kind == ENUM:
        return catalog.enum(argument.type.name).description.strip()
    if argument.type.kind == OBJECT and argument.required:
        core = catalog.object(argument.type.name)
        return core.description.strip() if core else ""
    return ""


def _unquote(usage: str, shown: str) -> tuple[str, str]:
    """A word in back quotes names the value instead of its type, and loses its quotes."""
    before, quote, rest = usage.partition("`")
    name, closing, after = rest.partition("`")
    return (name, before + name + after) if quote and closing else (shown, usage)


def type_word(ref: TypeRef, catalog: Catalog) -> str:
    """How a flag's type is called: `string`, `ints`, `FAST,VERY_SLOW`, `[]Directory`; nothing for a bool."""
    if ref.kind == LIST:
        element = ref.element
        assert element is not None
        plural = {"STRING": "strings", "INTEGER": "ints", "BOOLEAN": "bools", "FLOAT": "float64Slice"}
        return plural.get(element.kind) or f"[]{type_word(element, catalog)}"
    if ref.kind == ENUM:
        return ",".join(catalog.enum(ref.name).members)
    if ref.kind == "SCALAR" and ref.name != "Platform":
        return "string"
    words = {"STRING": "string", "INTEGER": "int", "FLOAT": "float", "BOOLEAN": ""}
    return words.get(ref.kind, ref.name)


def _default(argument: Argument) -> str:
    """What stands after `default`: nothing for what counts as empty, `[]` for the lists that cannot tell."""
    if argument.type.kind == LIST:
        element = argument.type.element
        known = element is not None and element.kind in ("STRING", "INTEGER")
        return "" if known else "[]"
    if argument.default is None:
        return ""
    value = json.loads(argument.default)
    if value in (None, False, 0, ""):
        return ""
    if value is True:
        return "true"
    if argument.type.kind in ("STRING", "SCALAR"):
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _options() -> str:
    """The program's own flags, and what this program is."""
    left = [
        ("  " + (f"-{o.short}, " if o.short else "    ") + f"--{o.name}" + (" string" if o.takes_value else ""), o.help)
        for o in OPTIONS
    ]
    width = max(len(flag) for flag, _ in left) + GAP
    rows = [f"{flag:<{width}}{text}" for flag, text in left]
    rows.append(f"\n  'agent-loop call' takes the words of '{PROGRAM} call' and needs no Dagger engine.")
    return "\n".join(rows)
