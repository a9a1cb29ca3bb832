"""`agent-loop up`: a list of small steps, each taking what the last one found, so that each is tested alone.

engine → registry → machine → secrets → own compose file → proxy's files → images → containers → proxy → report → model.
All are idempotent: `up` after an interruption, or again with nothing changed, does only what is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from ci.stack import (
    container_engine,
    doctor,
    images,
    machine,
    models,
    networks,
    offline,
    project,
    proxy,
    secrets,
    turns,
)
from ci.stack.errors import EngineMissing, NotReady, StartFailed, UsageError
from ci.stack.project import Project
from ci.stack.reach import registry_answers
from ci.stack.wanted import wanted_by

STAND_INS = {
    "dev": ("prometheus",),
    "prod": ("prometheus", "alertmanager", "node-exporter", "nginx"),
    "train": ("prometheus",),
}
"""The bases that a mode starts in place of registry images."""

LEFT_OUT = {
    "dev": "Ollama and Grafana exist only as registry images and are left out",
    "prod": "Ollama, Grafana and cAdvisor exist only as registry images and are left out",
    "train": "Nothing is left out",
}
"""What a mode does without when no registry answers."""


@dataclass(frozen=True)
class Context:
    """How the steps speak to the rest: a line for the person, and the pipelines."""

    say: Callable[[str], None]
    export: images.Export


def engine(stack: Project, context: Context) -> Project:
    """A container engine that answers, or EngineMissing with what to run."""
    try:
        found = container_engine.ensure(context.say)
    except container_engine.EngineError as error:
        raise EngineMissing(str(error)) from error
    if not found.containerd_store:
        context.say("The engine's containerd image store is off, so image digests are not reproducible here.")
    return stack


def reach(stack: Project, context: Context) -> Project:
    """Offline when asked for, or when no registry answers; said once."""
    if stack.offline or registry_answers():
        return stack
    context.say(f"No container registry can be reached: starting offline. {LEFT_OUT[stack.mode]}.")
    if stack.logs:
        context.say("So are Loki and Alloy; 'agent-loop logs' shows all containers' logs, merged.")
    return replace(stack, offline=True, logs=False)


def machine_fits(stack: Project, context: Context) -> Project:
    """Nothing on this machine is in the way. Raises NotReady with every line of `doctor` that says fail."""
    wanted = replace(
        wanted_by(stack.mode, "on" if stack.gpu else "auto", stack.offline, stack.environment()),
        model=models.served_name(stack),
    )
    there = machine.read(project.name(stack.mode), wanted.ports.values(), wanted.model, stack.state)
    wrong = [f"{f.check}: {f.detail} ({f.fix})" for f in doctor.examine(there, wanted) if f.level is doctor.Level.FAIL]
    if wrong:
        raise NotReady(f"Not ready to start {stack.mode}. {'; '.join(wrong)}.")
    return stack


def own_file(stack: Project, context: Context) -> Project:
    """A person's own compose file fits the others. Raises UsageError with what compose says of it.

    Asked before images are built, so those have any name here.
    """
    if stack.override.is_file():
        variables = [*(image.variable for image in images.OF_MODE[stack.mode]), *offline.STAND_INS.values()]
        assumed = dict.fromkeys(variables, "agent-loop/to-be-built")
        checked = stack.compose("config", "--quiet", capture=True, assumed=assumed)
        if checked.returncode != 0:
            said = " ".join(checked.stderr.split())
            raise UsageError(f"Your compose file does not fit, {stack.override}: {said}. Correct it, or move it away.")
    return stack


def proxy_files(stack: Project, context: Context) -> Project:
    """Certificate and configuration of the proxy, where the mode has one."""
    if stack.mode == "prod":
        for line in proxy.ensure(stack.state, stack.environment(), grafana=not stack.offline):
            context.say(line)
    return stack


def make_secrets(stack: Project, context: Context) -> Project:
    """The secrets that are missing."""
    made = secrets.ensure(stack.state)
    if made:
        context.say(
            f"Made {', '.join(made)} in {secrets.folder(stack.state)}; 'agent-loop secrets show NAME' prints one."
        )
    return stack


def build_images(stack: Project, context: Context) -> Project:
    """Our images by digest, and stand-ins for a registry's when offline."""
    found = project.read_env(stack.images_env)
    found |= images.build(images.OF_MODE[stack.mode], context.export)
    if stack.offline:
        found |= offline.build(STAND_INS[stack.mode], context.say)
    project.write_env(stack.images_env, found, "Written by 'agent-loop up': what runs, by digest.")
    return stack


def start(stack: Project, context: Context) -> Project:
    """Start every container and wait until each is healthy."""
    if gone := other_variant(project.remembered(stack.state, stack.mode == "train"), stack):
        # Compose leaves a service of another profile running, and both would answer to one name.
        stack.compose("--profile", "*", "rm", "--stop", "--force", gone, capture=True)
    project.remember(stack)
    words = ("up", "--detach", "--wait", "--wait-timeout", "300", "--remove-orphans", "--quiet-pull")
    if networks.launch(stack, *words) != 0:
        raise StartFailed(
            f"Not every container became healthy: {'; '.join(unhealthy(stack)) or 'see above'}."
            " 'agent-loop logs SERVICE' shows more; 'agent-loop up' tries again."
        )
    return stack


def other_variant(before: Project, now: Project) -> str | None:
    """The model server that ran before a switch between CPU and card, where there was one."""
    if now.mode == "train" or before.offline or now.offline or before.gpu == now.gpu or not project.was_started(before):
        return None
    return "ollama-gpu" if before.gpu else "ollama"


def load_proxy(stack: Project, context: Context) -> Project:
    """A proxy that runs already takes up another certificate or configuration; streams of before go on."""
    if stack.mode == "prod" and proxy.load(stack):
        context.say("The proxy has read its certificate and configuration again.")
    return stack


def report(stack: Project, context: Context) -> Project:
    """The addresses, and where the secrets are."""
    for line in addresses(stack):
        context.say(line)
    return stack


def pull_model(stack: Project, context: Context) -> Project:
    """The served model where it is missing, last: the stack runs, and says meanwhile that the model is not there."""
    if model := models.missing(stack):
        context.say(f"Pulling {model}; everything else runs. Ctrl-C stops that alone, and 'agent-loop init' goes on.")
        models.pull(stack, model)
    return stack


STEPS = (
    engine,
    reach,
    machine_fits,
    make_secrets,
    own_file,
    proxy_files,
    build_images,
    start,
    load_proxy,
    report,
)


def up(stack: Project, context: Context) -> Project:
    """Run every step in order. Raises a StackError, after which running `up` again is safe."""
    with turns.taken(stack.state, context.say):
        for step in STEPS:
            stack = step(stack, context)
    return pull_model(stack, context)  # in nobody's way: the stack runs, and may be stopped meanwhile


def containers(stack: Project) -> list[dict[str, object]]:
    """What compose says of each container, running or not."""
    listed = stack.compose("ps", "--all", "--format", "json", capture=True)
    return [json.loads(line) for line in listed.stdout.splitlines() if line.startswith("{")]


def unhealthy(stack: Project) -> list[str]:
    """`service (state): its last line` of each container that is neither healthy nor done with exit status 0."""
    found: list[str] = []
    for container in containers(stack):
        if state := trouble(container):
            service = str(container["Service"])
            logged = stack.compose("logs", "--no-log-prefix", "--no-color", "--tail", "5", service, capture=True)
            lines = [line.strip() for line in CONTROL.sub("", logged.stdout).splitlines() if line.strip()]
            found.append(f"{service} ({state})" + (f": {lines[-1][:300].rstrip('.')}" if lines else ""))
    return sorted(found)


CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""What compose adds to a line for a terminal, even where it writes to none."""


def trouble(container: Mapping[str, object]) -> str | None:
    """What a container is instead of healthy, or None where nothing is wrong with it.

    Compose says of one that ends and is started again and again neither its health nor how it ended.
    """
    state, health = str(container["State"]), str(container.get("Health") or "")
    if state == "exited":
        return state if container.get("ExitCode") else None
    if state in ("restarting", "paused", "dead"):
        return state
    return None if health in ("healthy", "") else health


TITLES = {
    "agent": "Agent Loop",
    "nginx": "Agent Loop",
    "prometheus": "Prometheus",
    "grafana": "Grafana",
    "ollama": "Ollama",
    "ollama-gpu": "Ollama",
    "jupyter": "Jupyter Lab",
    "tensorboard": "TensorBoard",
    "tracking": "MLflow",
    "gpu-monitor": "GPU metrics",
}


def addresses(stack: Project) -> Iterator[str]:
    """A line for each address that the running stack publishes, and one for how to get in."""
    for container in sorted(containers(stack), key=lambda c: str(c["Service"])):
        service, listed = str(container["Service"]), container.get("Publishers")
        published = {int(p["TargetPort"]): int(p["PublishedPort"]) for p in listed} if isinstance(listed, list) else {}
        for target, port in sorted(published.items()):
            if port and (service, target) != ("nginx", 8080):  # it only redirects
                yield f"{TITLES.get(service, service):<12} {address(service, port, stack.environment())}"
    if stack.mode == "train":
        yield "Jupyter Lab asks for a token: 'agent-loop secrets show jupyter' prints it."
        yield "Train: make train-gemma-2b DATA=chats.jsonl"
    else:
        yield "The service asks for an API key: 'agent-loop secrets show api_key' prints it."


def address(service: str, port: int, settings: Mapping[str, str]) -> str:
    """The address under which a person's browser finds a published port."""
    if service != "nginx":
        return f"http://localhost:{port}"
    return project.public_url({**settings, "HTTPS_PORT": str(port)})
