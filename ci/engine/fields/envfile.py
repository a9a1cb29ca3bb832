"""Fields of `EnvFile`, and the container that takes its variables."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ci.engine.graph import Node
from ci.engine.needs import Steps
from ci.engine.reading import file
from ci.engine.registry import Args, Call, field
from ci.engine.values import Container, File, Pairs, drop, put

from . import dotenv, query
from .records import Pair


@dataclass(frozen=True)
class EnvFile:
    """Variables as they are written; `context` has more for them to refer to."""

    lines: Pairs = ()
    context: Pairs = ()

    def values(self, ctx: Call) -> Pairs:
        """Names and what they come to, by name. Raises FieldError."""
        return tuple(dotenv.values(self.lines, self.context, _host(ctx)).items())


def _host(ctx: Call) -> dotenv.Lookup:
    return lambda name: ctx.session.env.get(name, "")


# `expand` of the two below changes nothing: "Variable expansion is now enabled by default".
@field("Query", "envFile")
def env_file(ctx: Call, parent: None, args: Args) -> EnvFile:
    return EnvFile()


@field("File", "asEnvFile")
def as_env_file(ctx: Call, parent: File, args: Args) -> Steps:
    if ctx.session.plan is not None and not parent.fs.static:
        return EnvFile()
    entry = yield from file(ctx, parent)
    return EnvFile(dotenv.parse(entry.blob.read().decode(errors="replace")))


@field("EnvFile", "withVariable")
def with_variable(ctx: Call, parent: EnvFile, args: Args) -> EnvFile:
    return replace(parent, lines=put(parent.lines, args["name"], args["value"]))


@field("EnvFile", "withoutVariable")
def without_variable(ctx: Call, parent: EnvFile, args: Args) -> EnvFile:
    return replace(parent, lines=drop(parent.lines, args["name"]))


@field("EnvFile", "namespace")
def namespace(ctx: Call, parent: EnvFile, args: Args) -> EnvFile:
    """The variables whose names begin with a prefix, without it; the others stay to be referred to."""
    prefixes, made = _prefixes(args["prefix"]), EnvFile(context=parent.context)
    for name, value in sorted(parent.lines):
        found = next((p for p in prefixes if name.lower().startswith(p)), None)
        if found is None:
            made = replace(made, context=put(made.context, name, value))
        else:
            made = replace(made, lines=put(made.lines, name[len(found) :], value))
    return made


def _prefixes(prefix: str) -> tuple[str, str]:
    """What a prefix is looked for as, in either case: `my-app` as `myApp_` and `my_app_`."""
    ends = r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9]|[A-Z][a-z])|(?<=[0-9])(?=[A-Za-z])"
    snake = re.sub(r"[ .-]", "_", re.sub(ends, "_", prefix.strip())).lower()
    return re.sub(r"[ ._-]", "", prefix).lower() + "_", snake if snake.endswith("_") else f"{snake}_"


@field("EnvFile", "variables")
def variables(ctx: Call, parent: EnvFile, args: Args) -> list[Pair]:
    return [Pair(n, v) for n, v in (sorted(parent.lines) if args["raw"] else parent.values(ctx))]


@field("EnvFile", "get")
def get(ctx: Call, parent: EnvFile, args: Args) -> str:
    if args["raw"]:
        return dict(parent.lines).get(args["name"], "")
    return dotenv.value(parent.lines, args["name"], parent.context, _host(ctx))


@field("EnvFile", "exists")
def exists(ctx: Call, parent: EnvFile, args: Args) -> bool:
    return args["name"] in dict(parent.lines)


@field("EnvFile", "asFile")
def as_file(ctx: Call, parent: EnvFile, args: Args) -> Node:
    text = "".join(f"{n}={v}\n" for n, v in parent.lines)
    defaults = {n: a.default for n, a in ctx.session.schema.types["Query"].fields["file"].args.items()}
    return query.file(ctx, None, {**defaults, "name": ".env", "contents": text})


@field("Container", "withEnvFileVariables")
def with_env_file_variables(ctx: Call, parent: Container, args: Args) -> Container:
    env = parent.env
    for name, value in args["source"].values(ctx):
        env = put(env, name, value)
    return parent.with_(env=env)
