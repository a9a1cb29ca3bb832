"""The wrapper's commands. Each is a few lines over the module that does the work."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ci.stack import apt, container_engine, project, secrets, turns
from ci.stack.errors import BuildFailed, EngineMissing, StackError, UsageError
from ci.stack.project import Project
from ci.stack.reporting import reported, say

if TYPE_CHECKING:
    from ci.stack.up import Context

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

FOR_BASES = ("mmdebstrap", "busybox-static")
FOR_TESTS = (
    "chromium",
    "nginx",
    "prometheus",
    "prometheus-alertmanager",
    "postgresql",
    "openssl",
    "git",
)


Mode = Annotated[str, typer.Argument(help="serve (dev or prod, whichever is up) or train")]
Train = Annotated[bool, typer.Option("--train", help="of the training stack")]


def remembered(which: str) -> Project:
    """The serving or the training stack as it was last started. Raises UsageError for another word."""
    if which not in ("serve", "dev", "prod", "train"):
        raise UsageError(f"No stack '{which}'. Use serve or train.")
    return project.remembered(project.state_folder(), train=which == "train")


def started(train: bool) -> Project:
    """As `remembered`, of a stack that there is. Raises StackError where none was ever started."""
    stack = remembered("train" if train else "serve")
    if not project.was_started(stack):
        raise StackError(f"Nothing was started from here yet. Start it: agent-loop up{' train' if train else ''}.")
    return stack


def turn() -> AbstractContextManager[None]:
    """Inside, no other command changes the stacks of this state folder."""
    return turns.taken(project.state_folder(), say)


@app.command()
@reported
def setup(
    tests: Annotated[
        bool, typer.Option("--tests", help="also the servers and the browser that the tests start")
    ] = False,
) -> None:
    """Set up what is missing here: container engine, base images."""
    try:
        container_engine.ensure(say)
        wanted = [*FOR_BASES, *(FOR_TESTS if tests else ())]
        if lacking := apt.missing(wanted):
            if not apt.may_install():
                raise EngineMissing(f"Missing packages. Run: apt-get install {' '.join(lacking)}")
            say(f"Installing {' '.join(lacking)}")
            apt.install(lacking)
    except (container_engine.EngineError, apt.InstallError) as error:
        raise EngineMissing(str(error)) from error
    from ci.engine.bases.cli import main as bases

    if bases(["build"]) != 0:
        raise BuildFailed("The base images are not there; see above. 'agent-loop setup' goes on from here.")


@app.command()
@reported
def up(
    mode: Annotated[str, typer.Argument(help="dev, prod or train")] = "dev",
    gpu: Annotated[str, typer.Option(help="auto, on or off")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="do not look for a registry")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="Loki and Alloy too: logs to search in Grafana")] = False,
) -> None:
    """Build, start and wait for the stack [dev|prod|train]."""
    from ci.stack import machine
    from ci.stack.up import up as run

    if gpu not in ("auto", "on", "off"):
        raise UsageError(f"No --gpu '{gpu}'. Use auto, on or off.")
    card = gpu == "on" or (gpu == "auto" and machine.card_usable())
    stack = Project(mode, offline, card, logs)
    with pipelines(mode) as speaking:
        run(stack, speaking)


@app.command()
@reported
def down(
    mode: Mode = "serve",
    volumes: Annotated[bool, typer.Option("--volumes", help="also delete the data, after a yes")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Stop the stack and keep its data."""
    stack = remembered(mode)
    if not project.was_started(stack):
        say("Nothing was started from here: nothing to stop.")
        return
    if volumes and not yes:
        typer.confirm("Delete every volume of the stack: models, runs, metrics, dashboards' state?", abort=True)
    with turn():
        # Every profile, so that what an earlier mode started ends too.
        done = remembered(mode).compose(
            "--profile", "*", "down", "--remove-orphans", *(["--volumes"] if volumes else [])
        )
    raise typer.Exit(done.returncode)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@reported
def ps(context: typer.Context, train: Train = False) -> None:
    """List the stack's containers."""
    raise typer.Exit(started(train).compose("ps", *context.args).returncode)


@app.command()
@reported
def logs(
    services: Annotated[list[str] | None, typer.Argument(help="only these services")] = None,
    train: Train = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as lines come")] = False,
    tail: Annotated[str, typer.Option("--tail", "-n", help="how many lines of each")] = "200",
) -> None:
    """Show the stack's logs, merged."""
    words = ["logs", "--timestamps", "--tail", tail, *(["--follow"] if follow else []), *(services or [])]
    raise typer.Exit(started(train).compose(*words).returncode)


@app.command()
@reported
def doctor(
    mode: Annotated[str, typer.Argument(help="dev, prod or train: whose ports and networks to look at")] = "dev",
    gpu: Annotated[str, typer.Option(help="auto, on or off")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="as 'up --offline' would start")] = False,
) -> None:
    """Say what the stack needs here: each line ok, warn or fail, with the fix."""
    from rich.console import Console
    from rich.table import Table

    from ci.stack import doctor, machine
    from ci.stack.wanted import wanted_by

    settings = Project(mode, offline).environment() if mode in project.MODES else {}
    wanted = wanted_by(mode, gpu, offline, settings)
    there = machine.read(project.name(mode), wanted.ports.values(), wanted.model, project.state_folder())
    findings = doctor.examine(there, wanted)
    table = Table(box=None)
    for title in ("CHECK", "", "FOUND", "FIX"):
        table.add_column(title, overflow="fold")
    colours = {doctor.Level.OK: "green", doctor.Level.WARN: "yellow", doctor.Level.FAIL: "red"}
    for finding in findings:
        level = f"[{colours[finding.level]}]{finding.level.value}[/]"
        table.add_row(finding.check, level, escape(finding.detail), escape(finding.fix))
    Console().print(table)
    if any(finding.level is doctor.Level.FAIL for finding in findings):
        raise typer.Exit(1)


@app.command()
@reported
def init(model: Annotated[str, typer.Argument(help="default: the one that is served")] = "") -> None:
    """Pull the model with progress."""
    from ci.stack import models

    stack = remembered("serve")
    models.pull(stack, model or models.served_name(stack))


@contextlib.contextmanager
def pipelines(mode: str | None = None) -> Generator[Context]:
    """How a command speaks to the person and to the pipelines; with the mode whose images it is sure to ask for."""
    from ci.stack import images
    from ci.stack.pipelines import opened
    from ci.stack.up import Context

    with opened(images.lines(images.OF_MODE[mode]) if mode else None) as export:
        yield Context(say, export)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
@reported
def backup(context: typer.Context) -> None:
    """Create, list, verify and restore backups of the stack's data."""
    from ci.stack import backups

    with turn() if context.args[:1] == ["restore"] else contextlib.nullcontext(), pipelines() as speaking:
        status = backups.run(project.state_folder(), context.args, speaking)
    if status:
        raise typer.Exit(status)


@app.command()
@reported
def upgrade() -> None:
    """Back up, build from the working tree, restart; goes back when the new images do not become healthy."""
    from ci.stack import maintenance

    with turn(), pipelines() as speaking:
        maintenance.upgrade(remembered("serve"), speaking, maintenance.Parts())


@app.command()
@reported
def rollback() -> None:
    """Start the images that ran before the last upgrade."""
    from ci.stack import maintenance

    with turn(), pipelines() as speaking:
        maintenance.rollback(remembered("serve"), speaking, maintenance.Parts())


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
@reported
def job(context: typer.Context) -> None:
    """Run a command of the trainer in the training container, such as: job train --model tiny."""
    from ci.stack import maintenance

    raise typer.Exit(maintenance.job(remembered("train"), context.args))


@app.command()
@reported
def shell(service: str = "agent", train: Train = False) -> None:
    """Open a shell in a service's container."""
    raise typer.Exit(started(train).compose("exec", service, "sh").returncode)


@app.command()
@reported
def stats(train: Train = False) -> None:
    """Processor, memory and network of each container, once."""
    raise typer.Exit(started(train).compose("stats", "--no-stream").returncode)


@app.command()
@reported
def clean(yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Remove images of ours that nothing needs, and old build cache."""
    from ci.stack import maintenance

    if not yes:
        typer.confirm("Remove unused agent-loop images and all but 10 GB of build cache?", abort=True)
    with turn():
        maintenance.clean(remembered("serve"), say)


model_app = typer.Typer(no_args_is_help=True)
app.add_typer(model_app, name="model", help="The served model.")


@model_app.command("use")
@reported
def model_use(name: str) -> None:
    """Pull a model and serve it."""
    from ci.stack import maintenance

    with turn():
        maintenance.use(remembered("serve"), name, say)


secrets_app = typer.Typer(no_args_is_help=True)
app.add_typer(secrets_app, name="secrets", help="The stack's secrets.")


@secrets_app.command("list")
def secrets_list() -> None:
    """Name the secrets and what each opens."""
    for secret in secrets.SECRETS.values():
        print(f"{secret.name:<12} {secret.opens}")


@secrets_app.command("show")
@reported
def secrets_show(name: str) -> None:
    """Print one secret."""
    print(secrets.show(project.state_folder(), name))
