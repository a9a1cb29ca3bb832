"""What a person reads before weights load: settings with their origin, data, rows, plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from .cards import GIB

if TYPE_CHECKING:
    from .launch import Prepared

RECOMPUTE = {
    "off": "nothing",
    "selective": "all but products",
    "full": "layers",
    "offload": "layers, their inputs in the host's memory",
}


def show(prepared: Prepared, rows: int = 3) -> None:
    """Print configuration, data, rows and plan."""
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
        show_rows(prepared.dataset, prepared.tokenizer, rows)
    else:
        typer.echo(prepared.note)
    plan = prepared.plan
    typer.echo("plan")
    typer.echo(
        f"  micro-batch {plan.micro} x {plan.accumulation}, recompute {RECOMPUTE[plan.level]}, "
        f"resident base {'yes' if plan.resident else 'no'}, attention {plan.attention}, "
        f"loss chunk {plan.loss_chunk}"
    )
    for name, size in plan.parts.items():
        typer.echo(f"  {name:<12} {size / GIB:6.2f} GiB")
    if plan.host:
        typer.echo(f"  {plan.host / GIB:.2f} GiB more of the host's memory")
    if plan.card is None:
        typer.echo(f"  {'total':<12} {plan.total / GIB:6.2f} GiB (on the CPU: the reserve is not needed)")
        typer.echo("  no card here: this is a run on the CPU; --card rtx-4090 --dry-run plans for a card")
    else:
        usable = plan.card.usable / GIB
        typer.echo(f"  {'total':<12} {plan.total / GIB:6.2f} GiB of {usable:.1f} GiB on {plan.card.name}")
    typer.echo(f"  {plan.flops_per_token / 1e9:.2f} GFLOP a token")
    if plan.card is not None and plan.card.lacks:
        typer.echo(f"  not compiled, and soft-capped attention not fused: here is not {plan.card.lacks}")
    if prepared.export:
        typer.echo(f"  export with {prepared.export}")
    if plan.seconds is not None:
        from .plan import EFFICIENCY

        typer.echo(f"  about {plan.seconds / 3600:.1f} h, if the card reaches {EFFICIENCY:.0%} of its peak")


def show_rows(dataset: Any, tokenizer: Any, rows: int) -> None:
    from rich.console import Console

    from .data.preview import preview

    console = Console(soft_wrap=True, highlight=False)
    marks = "in green" if console.is_terminal else "between « and »"
    if rows:
        typer.echo(f"rows, with what is learned {marks}")
    for row, example in list(zip(dataset.rows, dataset.examples, strict=True))[:rows]:
        console.print(f"line {example.line}:", style="bold")
        console.print(preview(row, tokenizer, colour=console.is_terminal))
