"""The trainer's commands. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .errors import ConfigError, DataError, Stopped, TrainerError

if TYPE_CHECKING:
    from .launch import Prepared

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Fine-tune models with QLoRA."
)
data_app = typer.Typer(no_args_is_help=True, help="Look at training data.")
app.add_typer(data_app, name="data")

Command = TypeVar("Command", bound=Callable[..., Any])


def _reported(command: Command) -> Command:
    """Turn our errors into their lines and exit statuses."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except TrainerError as error:
            if os.environ.get("AGENT_LOOP_VERBOSE"):
                raise
            typer.echo(str(error), err=True)
            raise typer.Exit(error.exit_code) from None

    return run  # type: ignore[return-value]


Output = Annotated[Path, typer.Option("--output", help="Folder that holds the runs.")]
RunArgument = Annotated[str, typer.Argument(help="A run's folder, or its id in --output; the newest by default.")]


@app.command()
@_reported
def train(
    model: Annotated[str, typer.Option(help="Preset, id on the hub, or folder.")] = "gemma-2b",
    data: Annotated[Path | None, typer.Option(help="JSONL file; by default our own example chats.")] = None,
    output: Output = Path("runs"),
    run_id: Annotated[str | None, typer.Option(help="The run's name; the same name goes on with it.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, section.key=value; repeatable.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many optimizer steps.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    card: Annotated[str | None, typer.Option(help="Plan for this card, such as rtx-4090 or 24gb.")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run, with its own settings.")] = None,
    force_resume: Annotated[bool, typer.Option(help="Go on although data, settings or versions changed.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the plan and three rows; train nothing.")] = False,
) -> None:
    """Train adapters on a model: plan, train, checkpoint; the same command goes on after any interruption."""
    from .launch import Request, prepare_run
    from .launch import dry_run as plan_only

    options = {"data.path": data.resolve() if data else None, "run.max_steps": max_steps, "run.device": device}
    request = Request(model, options, config, tuple(set_ or ()), card)
    if dry_run:
        _show(plan_only(request))
        return
    run = output / (run_id or f"{Path(model).name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if resume is not None:
        run, request = _resumed(_find(resume, output), request)
    _check_name(run)
    with _failures_of(run):
        prepared, base = prepare_run(request, run, force=force_resume)
        assert prepared.dataset is not None
        assert prepared.tokenizer is not None
        if int(os.environ.get("RANK", "0")) == 0:
            _show(prepared, rows=1)
        from .loop import Job
        from .loop import train as train_loop

        _quieten()
        job = Job(run, prepared.resolved, prepared.plan, prepared.dataset, prepared.tokenizer, base, force_resume)
        state = train_loop(job)
    if int(os.environ.get("RANK", "0")) == 0:
        best = f", best held-out loss {state.best_loss:.4f} at step {state.best_step}" if state.best_loss else ""
        typer.echo(f"Trained {state.step} steps, {state.tokens} tokens{best}. Adapter: {run / 'adapter'}")


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
@_reported
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
    _show_rows(dataset, tokenizer, rows)


@app.command("train-status")
@_reported
def train_status(output: Output = Path("runs")) -> None:
    """List the runs: state, step, loss, time left."""
    typer.echo(_status_table(output))


@app.command("train-monitor")
@_reported
def train_monitor(
    output: Output = Path("runs"), every: Annotated[float, typer.Option(help="Seconds between looks.")] = 2.0
) -> None:
    """Watch the runs until Ctrl-C."""
    from rich.live import Live

    try:
        with Live(_status_table(output), refresh_per_second=4) as live:
            while True:
                time.sleep(every)
                live.update(_status_table(output))
    except KeyboardInterrupt:
        return


@app.command("train-logs")
@_reported
def train_logs(
    run: RunArgument = "",
    output: Output = Path("runs"),
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the run does.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines to begin with.")] = 20,
) -> None:
    """Show a run's log and measurements in the order they happened."""
    from . import status

    folder = _find(run, output)
    shown = 0
    try:
        while True:
            entries = list(_log_lines(folder))
            for entry in entries[shown or max(0, len(entries) - lines) :]:
                typer.echo(entry)
            shown = len(entries)
            current = status.read(folder)
            if not follow or current is None or current.state not in ("starting", "running"):
                return
            time.sleep(1)
    except KeyboardInterrupt:
        return


@app.command("train-stop")
@_reported
def train_stop(
    run: RunArgument = "",
    output: Output = Path("runs"),
    wait: Annotated[float, typer.Option(help="Seconds to wait for the checkpoint.")] = 300.0,
) -> None:
    """Ask a run to save and end; the same train command goes on with it later."""
    import signal
    import socket

    from . import status

    folder = _find(run, output)
    current = status.read(folder)
    if current is None or current.state not in ("starting", "running"):
        typer.echo(f"{folder.name} is not running ({current.state if current else 'never started'}).")
        return
    if current.host != socket.gethostname():
        raise ConfigError([f"{folder.name} runs on {current.host}. Stop it there."])
    os.kill(current.pid, signal.SIGTERM)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        now = status.read(folder)
        if now is None or now.state not in ("starting", "running"):
            typer.echo(f"{folder.name}: {now.state if now else 'gone'} at step {now.step if now else '?'}.")
            return
        time.sleep(0.2)
    raise TrainerError(
        f"Still running after {wait:.0f} s, {folder.name}. Wait longer with --wait, or look at train-logs."
    )


@app.command("train-clean")
@_reported
def train_clean(
    run: RunArgument = "",
    output: Output = Path("runs"),
    all_: Annotated[bool, typer.Option("--all", help="The checkpoints of every run in --output.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete checkpoints (adapters, metrics and exports stay); names them and asks first."""
    import shutil

    from . import checkpoint, status

    doomed: list[Path] = []
    for folder in status.runs(output) if all_ else [_find(run, output)]:
        current = status.read(folder)
        if current is not None and current.state in ("starting", "running"):
            typer.echo(f"{folder} is running: kept.")
            continue
        checkpoints = checkpoint.folders(folder / "checkpoints")
        for path in checkpoints:
            typer.echo(f"{path}  {_size(path) / 1e6:.1f} MB")
        doomed += checkpoints
    if not doomed:
        typer.echo("No checkpoints to delete.")
        return
    if not yes and not typer.confirm(f"Delete these {len(doomed)} checkpoints? Their runs cannot go on after that."):
        typer.echo("Nothing deleted.")
        raise typer.Exit(1)
    for path in doomed:
        shutil.rmtree(path)
        (path.parent / "latest").unlink(missing_ok=True)
    typer.echo(f"Deleted {len(doomed)} checkpoints.")


@app.command("train-dev")
@_reported
def train_dev(
    output: Output = Path("runs"),
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
    from .errors import RunBusy

    try:
        yield
    except RunBusy:
        raise  # the run belongs to another process; its status is not ours to change
    except (TrainerError, KeyboardInterrupt) as error:
        if (run / "status.json").exists():
            from .loop import record_failure

            record_failure(run, error, stopped=isinstance(error, Stopped))
        raise


def _find(run: str, output: Path) -> Path:
    from . import status

    if run:
        for candidate in (Path(run), output / run):
            if (candidate / "config.json").exists():
                return candidate
        names = ", ".join(p.name for p in status.runs(output)) or "none"
        raise ConfigError([f"No run '{run}' in {output}. There: {names}."])
    newest = status.runs(output)
    if not newest:
        raise ConfigError([f"No runs in {output}. Start one with 'train', or name the folder with --output."])
    return newest[0]


def _show(prepared: Prepared, rows: int = 3) -> None:
    """Print configuration, data, rows and plan."""
    from .cards import GIB

    typer.echo("settings")
    for line in prepared.resolved.lines():
        typer.echo(f"  {line}")
    if prepared.dataset is not None and prepared.tokenizer is not None:
        from .data.check import report

        typer.echo("data")
        for line in report(
            prepared.dataset.facts, prepared.resolved.config.data.max_length, len(prepared.dataset.train)
        ):
            typer.echo(f"  {line}")
        _show_rows(prepared.dataset, prepared.tokenizer, rows)
    else:
        typer.echo(prepared.note)
    plan = prepared.plan
    typer.echo("plan")
    typer.echo(
        f"  micro-batch {plan.micro} x {plan.accumulation}, recompute layers {'yes' if plan.checkpointing else 'no'}, "
        f"resident base {'yes' if plan.resident else 'no'}, attention {plan.attention}, "
        f"loss chunk {plan.loss_chunk}"
    )
    for name, size in plan.parts.items():
        typer.echo(f"  {name:<12} {size / GIB:6.2f} GiB")
    if plan.card is None:
        typer.echo(f"  {'total':<12} {plan.total / GIB:6.2f} GiB (on the CPU: the reserve is not needed)")
    else:
        usable = plan.card.usable / GIB
        typer.echo(f"  {'total':<12} {plan.total / GIB:6.2f} GiB of {usable:.1f} GiB on {plan.card.name}")
    typer.echo(f"  {plan.flops_per_token / 1e9:.2f} GFLOP a token")
    if plan.seconds is not None:
        from .plan import EFFICIENCY

        typer.echo(f"  about {plan.seconds / 3600:.1f} h, if the card reaches {EFFICIENCY:.0%} of its peak")


def _show_rows(dataset: Any, tokenizer: Any, rows: int) -> None:
    from rich.console import Console

    from .data.preview import preview

    console = Console(soft_wrap=True, highlight=False)
    marks = "in green" if console.is_terminal else "between « and »"
    if rows:
        typer.echo(f"rows, with what is learned {marks}")
    for row, example in list(zip(dataset.rows, dataset.examples, strict=True))[:rows]:
        console.print(f"line {example.line}:", style="bold")
        console.print(preview(row, tokenizer, colour=console.is_terminal))


def _status_table(output: Path) -> str:
    from . import status

    lines = [f"{'run':<28} {'state':<9} {'step':>11} {'loss':>9} {'held out':>9}  left"]
    for run in status.runs(output):
        found = status.read(run) or status.Status("never started")
        loss = f"{found.loss:.4f}" if found.loss is not None else "-"
        held_out = f"{found.eval_loss:.4f}" if found.eval_loss is not None else "-"
        left = "-"
        if found.state == "running" and found.seconds_left is not None:
            left = f"{found.seconds_left / 60:.0f} min"
        steps = f"{found.step}/{found.total}"
        lines.append(f"{run.name:<28} {found.state:<9} {steps:>11} {loss:>9} {held_out:>9}  {left}")
        if found.state == "failed":
            lines.append(f"  {found.message}")
    return "\n".join(lines) if len(lines) > 1 else f"No runs in {output}."


def _log_lines(run: Path) -> Iterator[str]:
    import json

    from . import metrics

    entries: list[tuple[float, str]] = []
    for record in metrics.read(run / "metrics.jsonl"):
        entries.append((record["time"], f"step {int(record['step'])}  {metrics.describe(record)}"))
    if (run / "train.log").exists():
        for line in (run / "train.log").read_text().splitlines():
            event = json.loads(line)
            entries.append((event["time"], event["event"]))
    for when, text in sorted(entries, key=lambda e: e[0]):
        yield f"{time.strftime('%H:%M:%S', time.localtime(when))}  {text}"


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _quieten() -> None:
    """Libraries warn about things that are not the person's to change; errors still show."""
    import logging
    import warnings

    if not os.environ.get("AGENT_LOOP_VERBOSE"):
        warnings.filterwarnings("ignore")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


__all__ = ["DataError", "app"]

if __name__ == "__main__":
    sys.exit(app())
