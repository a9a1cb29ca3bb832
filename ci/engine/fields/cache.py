"""`CacheVolume` has no field but its id; `EnvFile` carries variables to a container."""

from __future__ import annotations

from ci.engine.registry import Args, Call, field
from ci.engine.values import Container, Pairs, put


@field("Query", "envFile")
def env_file(ctx: Call, parent: None, args: Args) -> Pairs:
    return ()


@field("EnvFile", "withVariable")
def with_variable(ctx: Call, parent: Pairs, args: Args) -> Pairs:
    return put(parent, args["name"], args["value"])


@field("EnvFile", "withoutVariable")
def without_variable(ctx: Call, parent: Pairs, args: Args) -> Pairs:
    return tuple(p for p in parent if p[0] != args["name"])


@field("Container", "withEnvFileVariables")
def with_env_file_variables(ctx: Call, parent: Container, args: Args) -> Container:
    env = parent.env
    for name, value in args["source"]:
        env = put(env, name, value)
    return parent.with_(env=env)
