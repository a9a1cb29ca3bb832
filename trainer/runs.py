"""Commands on runs that exist: list them, watch them, read their log, stop one, delete checkpoints.

`COMMANDS` maps each name a person types to its function; `cli` makes them commands of its application.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from . import checkpoint, metrics, status
from .command import RUNS, Output, RunArgument
from .errors import ConfigError, TrainerError


def list_runs(output: Output = RUNS) -> None:
    """List the runs: state, step, loss, time left."""
    typer.echo(_status_table(output))


def monitor(output: Output = RUNS, every: Annotated[float, typer.Option(help="Seconds between looks.")] = 2.0) -> None:
    """Watch the runs until Ctrl-C."""
    from rich.live import Live

    try:
        with Live(_status_table(output), refresh_per_second=4) as live:
            while True:
                time.sleep(every)
                live.update(_status_table(output))
    except KeyboardInterrupt:
        return


def logs(
    run: RunArgument = "",
    output: Output = RUNS,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the run does.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines to begin with.")] = 20,
) -> None:
    """Show a run's log and measurements in the order they happened."""
    folder = find(run, output)
    shown = 0
    try:
        while True:
            entries = list(_log_lines(folder))
            for entry in entries[shown or max(0, len(entries) - lines) :]:
                typer.echo(entry)
            shown = len(entries)
            current = status.read(folder)
            if not follow or current is None or current.state not in status.ALIVE:
                return
            time.sleep(1)
    except KeyboardInterrupt:
        return


def stop(
    run: RunArgument = "",
    output: Output = RUNS,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the checkpoint.")] = 300.0,
) -> None:
    """Ask a run to save and end, wherever it runs; the same train command goes on with it later."""
    folder = find(run, output)
    current = status.read(folder)
    if current is None or current.state not in status.ALIVE:
        typer.echo(f"{folder.name} is not running ({current.state if current else 'never started'}).")
        return
    status.ask_to_stop(folder)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        now = status.read(folder)
        if now is None or now.state not in status.ALIVE:
            typer.echo(f"{folder.name}: {now.state if now else 'gone'} at step {now.step if now else '?'}.")
            return
        time.sleep(0.2)
    raise TrainerError(
        f"Still running after {wait:.0f} s, {folder.name} on {current.host}. It stops after its step: wait longer with "
        "--wait, or look at train-logs."
    )


def clean(
    run: RunArgument = "",
    output: Output = RUNS,
    all_: Annotated[bool, typer.Option("--all", help="The checkpoints of every run in --output.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete checkpoints (adapters, metrics and exports stay); names them and asks first."""
    doomed: list[Path] = []
    for folder in status.runs(output) if all_ else [find(run, output)]:
        current = status.read(folder)
        if current is not None and current.state in status.ALIVE:
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


def find(run: str, output: Path) -> Path:
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


def _status_table(output: Path) -> str:
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
    entries: list[tuple[float, str]] = []
    for record in metrics.read(run / "metrics.jsonl"):
        entries.append((record["time"], f"step {int(record['step'])}  {metrics.describe(record)}"))
    for event in metrics.read(run / "train.log"):  # the same form: whole lines alone
        entries.append((event["time"], str(event["event"])))
    for when, text in sorted(entries, key=lambda e: e[0]):
        yield f"{time.strftime('%H:%M:%S', time.localtime(when))}  {text}"


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


COMMANDS: Mapping[str, Callable[..., Any]] = {
    "train-status": list_runs,
    "train-monitor": monitor,
    "train-logs": logs,
    "train-stop": stop,
    "train-clean": clean,
}
