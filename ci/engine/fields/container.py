"""Fields of `Container` that set or read its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ci.engine.build.images import Resolved
from ci.engine.durations import go_duration, nanoseconds
from ci.engine.errors import FieldError, Unsupported
from ci.engine.files.fs import Image
from ci.engine.registry import Args, Call, field
from ci.engine.values import Container, Healthcheck, Port, drop, put

from .records import Pair

NOT_FROM = (
    "Image reference can only be retrieved immediately after the 'Container.From' call. "
    "Error in fetching imageRef as the container image is changed"
)


@field("Container", "from")
def from_(ctx: Call, parent: Container, args: Args) -> Container:
    if args.get("registryService") is not None:
        raise Unsupported("Container.from(registryService:)")
    found = ctx.session.images.resolve(args["address"], parent.platform)
    image = Image(found.reference, parent.platform, found.context, args["address"])
    return on_image(parent, found, image)


def on_image(parent: Container, found: Resolved, image: Image) -> Container:
    """A container on an image: variables, labels and ports set before stay, the rest is the image's."""
    made = configured(replace(parent, fs=image), found.config)
    return replace(made, image_ref=found.reference, step=None, mounts=(), secrets=parent.secrets)


def configured(base: Container, config: Any) -> Container:
    """A container with an image's configuration over its own."""
    variables = [v.partition("=") for v in config.get("Env") or []]
    env, labels, ports = base.env, base.labels, base.ports
    for name, _, value in variables:
        env = put(env, name, value)
    for name, value in (config.get("Labels") or {}).items():
        labels = put(labels, name, value)
    for text in config.get("ExposedPorts") or {}:
        number, _, protocol = text.partition("/")
        port = Port(int(number), (protocol or "tcp").upper())
        ports = (*[p for p in ports if (p.port, p.protocol) != (port.port, port.protocol)], port)
    check = config.get("Healthcheck")
    return replace(
        base,
        base_env=tuple((n, v) for n, _, v in variables),
        env=env,
        labels=labels,
        ports=ports,
        user=config.get("User") or "",
        workdir=config.get("WorkingDir") or "",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        default_args=tuple(config.get("Cmd") or ()),
        healthcheck=_from_docker(check) if check else base.healthcheck,
        extra={k: config[k] for k in ("StopSignal", "Volumes", "Shell", "OnBuild") if config.get(k)},
    )


def _from_docker(check: Any) -> Healthcheck | None:
    """A health check as an image has it; None for the one that says there is none."""
    test = list(check.get("Test") or [])
    if not test or test[0] == "NONE":
        return None
    shell = test[0] == "CMD-SHELL"
    return Healthcheck(
        tuple(test[1:]),
        shell,
        go_duration(check.get("Interval", 0)),
        go_duration(check.get("Timeout", 0)),
        go_duration(check.get("StartPeriod", 0)),
        go_duration(check.get("StartInterval", 0)),
        check.get("Retries", 0),
    )


@field("Container", "imageRef")
def image_ref(ctx: Call, parent: Container, args: Args) -> str:
    if parent.image_ref is None:
        raise FieldError(NOT_FROM)
    return parent.image_ref


@field("Container", "platform")
def platform(ctx: Call, parent: Container, args: Args) -> str:
    return parent.platform


# Variables


@field("Container", "withEnvVariable")
def with_env_variable(ctx: Call, parent: Container, args: Args) -> Container:
    value = parent.expand(args["value"], refuse_secrets=False) if args["expand"] else args["value"]
    name, equals, rest = str(args["name"]).partition("=")
    return parent.with_(env=put(parent.env, name, f"{rest}={value}" if equals else value))


@field("Container", "withoutEnvVariable")
def without_env_variable(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(env=drop(parent.env, args["name"]))


@field("Container", "envVariable")
def env_variable(ctx: Call, parent: Container, args: Args) -> str | None:
    return parent.variable(args["name"])


@field("Container", "envVariables")
def env_variables(ctx: Call, parent: Container, args: Args) -> list[Pair]:
    return [Pair(n, v) for n, v in parent.env]


@field("Container", "withVolatileVariable")
def with_volatile_variable(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(volatile=put(parent.volatile, args["name"], args["value"]))


@field("Container", "withoutVolatileVariable")
def without_volatile_variable(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(volatile=drop(parent.volatile, args["name"]))


@field("Container", "withSecretVariable")
def with_secret_variable(ctx: Call, parent: Container, args: Args) -> Container:
    rest = tuple(s for s in parent.secrets if s[0] != args["name"])
    return parent.with_(secrets=(*rest, (args["name"], args["secret"])))


@field("Container", "withoutSecretVariable")
def without_secret_variable(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(secrets=tuple(s for s in parent.secrets if s[0] != args["name"]))


# User, working folder, entrypoint


@field("Container", "withUser")
def with_user(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(user=args["name"])


@field("Container", "withoutUser")
def without_user(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(user="")


@field("Container", "user")
def user(ctx: Call, parent: Container, args: Args) -> str:
    return parent.user


@field("Container", "withWorkdir")
def with_workdir(ctx: Call, parent: Container, args: Args) -> Container:
    path = parent.expand(args["path"]) if args["expand"] else args["path"]
    return parent.with_(workdir=path if path.startswith("/") else parent.absolute(path))


@field("Container", "withoutWorkdir")
def without_workdir(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(workdir="")


@field("Container", "workdir")
def workdir(ctx: Call, parent: Container, args: Args) -> str:
    return parent.workdir


@field("Container", "withEntrypoint")
def with_entrypoint(ctx: Call, parent: Container, args: Args) -> Container:
    kept = parent.default_args if args["keepDefaultArgs"] else ()
    return parent.with_(entrypoint=tuple(args["args"]), default_args=kept)


@field("Container", "withoutEntrypoint")
def without_entrypoint(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(entrypoint=(), default_args=parent.default_args if args["keepDefaultArgs"] else ())


@field("Container", "entrypoint")
def entrypoint(ctx: Call, parent: Container, args: Args) -> list[str]:
    return list(parent.entrypoint)


@field("Container", "withDefaultArgs")
def with_default_args(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(default_args=tuple(args["args"]))


@field("Container", "withoutDefaultArgs")
def without_default_args(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(default_args=())


@field("Container", "defaultArgs")
def default_args(ctx: Call, parent: Container, args: Args) -> list[str]:
    return list(parent.default_args)


@field("Container", "withDefaultTerminalCmd")
def with_default_terminal_cmd(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_()


# Labels, annotations


@field("Container", "withLabel")
def with_label(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(labels=put(parent.labels, args["name"], args["value"]))


@field("Container", "withoutLabel")
def without_label(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(labels=drop(parent.labels, args["name"]))


@field("Container", "label")
def label(ctx: Call, parent: Container, args: Args) -> str | None:
    return dict(parent.labels).get(args["name"])


@field("Container", "labels")
def labels(ctx: Call, parent: Container, args: Args) -> list[Pair]:
    return [Pair(n, v) for n, v in parent.labels]


@field("Container", "withAnnotation")
def with_annotation(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(annotations=put(parent.annotations, args["name"], args["value"]))


@field("Container", "withoutAnnotation")
def without_annotation(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(annotations=drop(parent.annotations, args["name"]))


# Ports, health


@field("Container", "withExposedPort")
def with_exposed_port(ctx: Call, parent: Container, args: Args) -> Container:
    port = Port(args["port"], args["protocol"], args["description"], args["experimentalSkipHealthcheck"])
    rest = tuple(p for p in parent.ports if (p.port, p.protocol) != (port.port, port.protocol))
    return parent.with_(ports=(*rest, port))


@field("Container", "withoutExposedPort")
def without_exposed_port(ctx: Call, parent: Container, args: Args) -> Container:
    gone = (args["port"], args["protocol"])
    return parent.with_(ports=tuple(p for p in parent.ports if (p.port, p.protocol) != gone))


@field("Container", "exposedPorts")
def exposed_ports(ctx: Call, parent: Container, args: Args) -> list[Port]:
    return list(parent.ports)


@field("Container", "withDockerHealthcheck")
def with_docker_healthcheck(ctx: Call, parent: Container, args: Args) -> Container:
    if args["shell"] and len(args["args"]) != 1:
        raise FieldError("WithHealthcheck args must be a single element when shell mode is set")
    if not args["args"]:
        raise FieldError("WithHealthcheck args is missing")
    interval, timeout, start_period, start_interval = (
        go_duration(nanoseconds(args[n])) if args[n] else "0s"
        for n in ("interval", "timeout", "startPeriod", "startInterval")
    )
    check = Healthcheck(
        tuple(args["args"]), bool(args["shell"]), interval, timeout, start_period, start_interval, args["retries"] or 0
    )
    return parent.with_(healthcheck=check)


@field("Container", "withoutDockerHealthcheck")
def without_docker_healthcheck(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(healthcheck=None)


@field("Container", "dockerHealthcheck")
def docker_healthcheck(ctx: Call, parent: Container, args: Args) -> Healthcheck | None:
    return parent.healthcheck


# Registries, errors, what needs an engine


@field("Container", "withRegistryAuth")
def with_registry_auth(ctx: Call, parent: Container, args: Args) -> Container:
    if ctx.session.plan is None:
        word = ctx.session.secrets.plaintext(args["secret"])
        ctx.session.builder.logins.add(args["address"], args["username"], word)
    return parent


@field("Container", "withoutRegistryAuth")
def without_registry_auth(ctx: Call, parent: Container, args: Args) -> Container:
    if ctx.session.plan is None:
        ctx.session.builder.logins.remove(args["address"])
    return parent


@field("Container", "withError")
def with_error(ctx: Call, parent: Container, args: Args) -> Container:
    if args["err"]:
        raise FieldError(args["err"])
    return parent


@field("Container", "experimentalWithAllGPUs")
def experimental_with_all_gpus(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(extra={**parent.extra, "gpus": ["all"]})


@field("Container", "experimentalWithGPU")
def experimental_with_gpu(ctx: Call, parent: Container, args: Args) -> Container:
    return parent.with_(extra={**parent.extra, "gpus": list(args["devices"])})


@field("Container", "withServiceBinding")
def with_service_binding(ctx: Call, parent: Container, args: Args) -> Container:
    raise Unsupported("Service bindings", "Run it there: 'dagger call ...'.")
