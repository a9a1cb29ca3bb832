"""`agent-loop evals run FILE`: golden prompts against the configured backend or any OpenAI-compatible address.

Exit status: 0 good enough, 1 below a threshold, 2 nothing could be judged (bad file, no such model, no answer).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service import backends, settings
from service.backends.base import Backend, BackendError, Sampling
from service.backends.openai import OpenAIBackend
from service.errors import StartupError
from service.evals import cases
from service.evals.run import evaluate
from service.evals.score import Report, Verdict, report

app = typer.Typer(help=__doc__, no_args_is_help=True, rich_markup_mode=None)
out = Console()
err = Console(stderr=True)


@app.callback()
def evals() -> None:
    """Score a model on golden prompts."""


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="JSON Lines file of cases; see docs/evals.md.")],
    url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible address, such as http://127.0.0.1:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model or agent/NAME [AGENT_LOOP_MODEL].")] = None,
    key: Annotated[str, typer.Option(help="Variable that holds the API key.")] = "AGENT_LOOP_API_KEY",
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="Times each case is asked.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Cases asked at a time.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Limit of one answer.")] = 300.0,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 0.0,
    min_pass: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of answers that must be good.")] = 1.0,
    min_trigger: Annotated[float, typer.Option(min=0.0, max=1.0, help="F1 of calling tools when it should.")] = 0.0,
    min_schema: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of calls with valid arguments.")] = 0.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report there.")] = None,
) -> None:
    """Ask every case of FILE and say whether the answers are good enough."""
    try:
        found = cases.read(file)
        backend, name = _backend(url, model, key)
        verdicts = _ask(backend, name, found, repeat, concurrency, seconds, Sampling(temperature))
    except (cases.BadCases, StartupError, BackendError) as error:
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    result = report(found, verdicts)
    if json_file is not None:
        json_file.write_text(json.dumps({"model": name, **result.as_json()}, indent=2) + "\n", encoding="utf-8")
    _print(result, name)
    if result.errors == result.attempts:
        err.print(f"No answer at all: {verdicts[0].error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    short = [
        f"{what} {value:.3f} is below {wanted:g}"
        for what, value, wanted in (
            ("the share of good answers", result.pass_rate, min_pass),
            ("the trigger F1", result.trigger_f1, min_trigger),
            ("the schema accuracy", result.schema_accuracy, min_schema),
        )
        if value is not None and value < wanted
    ]
    if short:
        err.print(f"Not good enough: {'; '.join(short)}.", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def _backend(url: str | None, model: str | None, key: str) -> tuple[Backend, str]:
    configured = settings.load()
    name = model or configured.model
    if url is None:
        return backends.create(configured), name
    return OpenAIBackend(url, api_key=os.environ.get(key) or None, label="The service"), name


def _ask(
    backend: Backend,
    model: str,
    found: list[cases.Case],
    repeat: int,
    concurrency: int,
    seconds: float,
    sampling: Sampling,
) -> list[Verdict]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(model, total=len(found) * repeat)

        async def main() -> list[Verdict]:
            try:
                await backend.ready(model)
                return await evaluate(
                    backend,
                    model,
                    found,
                    repeat=repeat,
                    concurrency=concurrency,
                    seconds=seconds,
                    sampling=sampling,
                    done=lambda _: progress.advance(task),
                )
            finally:
                await backend.aclose()

        return anyio.run(main)


def _print(result: Report, model: str) -> None:
    bad = [verdict for verdict in result.verdicts if not verdict.passed]
    if bad:
        table = Table("case", "what is wrong", box=None, pad_edge=False)
        for verdict in bad[:50]:
            table.add_row(verdict.case, "; ".join(verdict.failures)[:300])
        out.print(table, markup=False)
    rows = [
        ("model", model),
        (
            "good answers",
            f"{result.passed} of {result.attempts} ({result.pass_rate:.1%}, at least {result.pass_low:.1%})",
        ),
        ("trigger F1", _share(result.trigger_f1)),
        ("schema accuracy", _share(result.schema_accuracy)),
        ("errors", str(result.errors)),
        ("seconds", f"p50 {result.p50_seconds:.2f}, p95 {result.p95_seconds:.2f}"),
        ("first token", "-" if result.p50_first_token is None else f"p50 {result.p50_first_token:.2f} s"),
        ("tokens a second", "-" if result.tokens_per_second is None else f"{result.tokens_per_second:.1f}"),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    out.print(table, markup=False)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    app(prog_name="agent-loop evals")
