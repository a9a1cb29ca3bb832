"""The trainer's commands. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from . import runs
from .command import RUNS, Output, quieten, reported
from .errors import ConfigError, RunBusy, Stopped
from .runs import find
from .show import show, show_rows

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Fine-tune models with QLoRA."
)
data_app = typer.Typer(no_args_is_help=True, help="Look at training data.")
app.add_typer(data_app, name="data")


@app.command()
@reported
def train(
    model: Annotated[str, typer.Option(help="Preset, id on the hub, or folder.")] = "gemma-2b",
    data: Annotated[Path | None, typer.Option(help="JSONL file; by default our own example chats.")] = None,
    output: Output = RUNS,
    run_id: Annotated[str | None, typer.Option(help="The run's name; the same name goes on with it.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, section.key=value; repeatable.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many optimizer steps.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    card: Annotated[str | None, typer.Option(help="Plan for this card, such as rtx-4090 or 24gb.")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run, with its own settings.")] = None,
    force_resume: Annotated[bool, typer.Option(help="Go on although data, settings or versions changed.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the plan and three rows; train nothing.")] = False,
    gguf: Annotated[
        list[str] | None, typer.Option("--gguf", help="Export this too at the end: f16, q8_0, q4_k_m; repeatable.")
    ] = None,
    unload: Annotated[bool, typer.Option("--unload", help="Let Ollama's models leave memory before planning.")] = False,
    ollama: Annotated[str | None, typer.Option(envvar="OLLAMA_HOST", help="Ollama's address, for --unload.")] = None,
) -> None:
    """Train adapters on a model: plan, train, checkpoint; the same command goes on after any interruption."""
    from .export.quantise import kinds
    from .launch import Request, prepare_job
    from .launch import dry_run as plan_only

    wanted = kinds(gguf or ())
    options = {"data.path": data.resolve() if data else None, "run.max_steps": max_steps, "run.device": device}
    request = Request(model, options, config, tuple(set_ or ()), card, exports=bool(wanted))
    main = int(os.environ.get("RANK", "0")) == 0
    if main and (unload or (card is None and device != "cpu")):
        _make_room(ollama, unload)
    if dry_run:
        show(plan_only(request))
        return
    run = output / (run_id or f"{Path(model).name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if resume is not None:
        run, request = _resumed(find(resume, output), request)
    _check_name(run)
    with _failures_of(run):
        job = prepare_job(request, run, force=force_resume, show=functools.partial(show, rows=1) if main else None)
        from .loop import train as train_loop

        quieten()
        state = train_loop(job)
    if main:
        best = f", best held-out loss {state.best_loss:.4f} at step {state.best_step}" if state.best_loss else ""
        typer.echo(f"Trained {state.step} steps, {state.tokens} tokens{best}. Adapter: {run / 'adapter'}")
    if main and wanted:
        from .export.job import Request as ExportRequest
        from .export.job import export

        copies = Path(folder) if (folder := os.environ.get("AGENT_LOOP_GGUF_FOLDER")) else None
        typer.echo(f"Exported and verified: {export(ExportRequest(run, kinds=wanted, copy_to=copies), typer.echo)}")


def _make_room(url: str | None, asked: bool) -> None:
    """Before planning: what Ollama holds may leave, if asked for or on a yes. Asks only where a card is in use."""
    from . import cards

    if not asked and ((card := cards.detect()) is None or card.free is None or card.memory - card.free < cards.GIB):
        return
    from .ollama import DEFAULT_URL, Ollama
    from .unload import offer

    person = sys.stdin.isatty() and sys.stdout.isatty()
    with Ollama(url or DEFAULT_URL) as client:
        offer(client, asked=asked, ask=typer.confirm if person else None, say=typer.echo, named=bool(url))


def _same_with(model: str | None) -> Callable[..., None]:
    def command(context: typer.Context) -> None:
        words = list(context.args)
        if model is not None:
            words = ["--model", model, *words]
        elif "--model" not in " ".join(words) or "--data" not in " ".join(words):
            typer.echo("A custom run needs a model and data. Give --model ID-OR-FOLDER and --data FILE.", err=True)
            raise typer.Exit(2)
        app(["train", *words], standalone_mode=True)

    return command


_ANY = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("train-gemma-2b", context_settings=_ANY, help="train --model gemma-2b; options as of train.")(
    _same_with("gemma-2b")
)
app.command("train-gemma-9b", context_settings=_ANY, help="train --model gemma-9b; options as of train.")(
    _same_with("gemma-9b")
)
app.command("train-custom", context_settings=_ANY, help="train with --model and --data of your own.")(_same_with(None))


@data_app.command("check")
@reported
def data_check(
    file: Annotated[Path, typer.Argument(help="JSONL file.")],
    model: Annotated[str, typer.Option(help="Whose tokenizer and chat template to use.")] = "tiny",
    max_length: Annotated[int | None, typer.Option(help="Tokens at which rows are cut.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format of the rows; guessed by default.")] = None,
    rows: Annotated[int, typer.Option(help="Rows to show.")] = 3,
) -> None:
    """Name each bad line; then count rows, tokens, what is learned, duplicates and truncations."""
    import tempfile

    from . import config, hub
    from .data.check import report
    from .data.dataset import prepare
    from .data.template import ChatTokenizer

    options = {"data.path": file, "data.max_length": max_length, "data.format": format_}
    settings = config.resolve(model, options=options).config
    with tempfile.TemporaryDirectory(prefix="agent-loop-") as home:
        tokenizer = ChatTokenizer.load(hub.fetch(settings.model, Path(home), weights=False))
    dataset = prepare(settings.data, tokenizer, settings.run.seed)
    for line in report(dataset.facts, settings.data.max_length, len(dataset.train) + len(dataset.eval)):
        typer.echo(line)
    show_rows(dataset, tokenizer, rows)


for _name, _command in runs.COMMANDS.items():
    app.command(_name)(reported(_command))


@app.command("train-dev")
@reported
def train_dev(
    output: Output = RUNS,
    jupyter_port: Annotated[int, typer.Option(help="Jupyter Lab's port.")] = 8888,
    tensorboard_port: Annotated[int, typer.Option(help="TensorBoard's port.")] = 6006,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Run Jupyter Lab (a token is always required) and TensorBoard over the runs until Ctrl-C."""
    from .development import serve

    serve(output, host, jupyter_port, tensorboard_port)


def _resumed(run: Path, request: Any) -> tuple[Path, Any]:
    """A request that repeats what the run was started with."""
    from dataclasses import replace

    from . import config

    saved = config.load(run / "config.json")
    values = dict(config.flatten(saved.config.model_dump(mode="json")))
    origins = saved.origins
    given = {k: values[k] for k, origin in origins.items() if origin not in ("default", "plan") and k != "model.id"}
    options = {**given, **{k: v for k, v in request.options.items() if v is not None}}
    return run, replace(request, model=saved.config.model.id, options=options)


def _check_name(run: Path) -> None:
    if not run.name or run.name.startswith(".") or not all(c.isalnum() or c in "._-" for c in run.name):
        raise ConfigError([f"Not a run's name, '{run.name}'. Use letters, digits, dot, dash and underscore."])


@contextmanager
def _failures_of(run: Path) -> Generator[None]:
    """Leave a failure's reason in the run's folder too."""
    try:
        yield
    except RunBusy:
        raise  # the run belongs to another process; its status is not ours to change
    except (Exception, KeyboardInterrupt) as error:
        if (run / "status.json").exists():
            from .journal import record_failure

            with suppress(OSError):  # such as on a full disk: the message matters more
                record_failure(run, error, stopped=isinstance(error, Stopped))
        raise
