"""`agent-loop export RUN` and `agent-loop demo-model`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.command import RUNS, Output, quieten, reported

from .merge import Onto
from .quantise import Kind

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Ship what a run trained."""


@app.command("export")
@reported
def export_command(
    run: Annotated[str, typer.Argument(help="A run's folder, or its id in --output.")],
    output: Output = RUNS,
    gguf: Annotated[
        list[Kind] | None, typer.Option("--gguf", help="Kind of file; repeatable. Default: q8_0 and (ours) q4_k_m.")
    ] = None,
    merge_onto: Annotated[
        Onto, typer.Option(help="Add the adapter to the weights training saw, or to the published ones.")
    ] = Onto.TRAINED,
    adapter_only: Annotated[bool, typer.Option("--adapter-only", help="Write the LoRA alone as GGUF.")] = False,
    drop_merged: Annotated[bool, typer.Option("--drop-merged", help="Delete the merged safetensors again.")] = False,
    converter: Annotated[
        str, typer.Option(help="ours (Gemma 2 and 3) or official (llama.cpp's, downloaded).")
    ] = "ours",
    name: Annotated[str | None, typer.Option(help="The model's name inside the file.")] = None,
    copy_to: Annotated[
        Path | None,
        typer.Option(envvar="AGENT_LOOP_GGUF_FOLDER", help="Copy what passed here too, in a folder of the run's name."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads for llama.cpp; all processors by default.")] = None,
) -> None:
    """Merge, write GGUF and a Modelfile, and prove in llama.cpp that the file answers as the trained model does."""
    from .job import DEFAULT_KINDS, OFFICIAL_KINDS, Request, export

    if converter not in ("ours", "official"):
        raise typer.BadParameter(f"'{converter}' is no converter; use ours or official.")
    quieten()
    request = Request(
        run=find_run(run, output),
        kinds=tuple(gguf or (OFFICIAL_KINDS if converter == "official" else DEFAULT_KINDS)),
        onto=merge_onto,
        adapter_only=adapter_only,
        keep_merged=not drop_merged,
        converter=converter,
        name=name,
        threads=threads,
        copy_to=copy_to,
    )
    report = export(request, typer.echo)
    typer.echo(f"Exported and verified: {report}. Next: agent-loop deploy {run}")


def find_run(run: str, output: Path) -> Path:
    """The run's folder: as given, or by its id in `output`."""
    given = Path(run)
    return given if (given / "config.json").is_file() else output / run


@app.command("demo-model")
@reported
def demo_model(
    work: Annotated[Path, typer.Option(help="Folder for base, run and export.")] = Path("runs/demo-model"),
    check: Annotated[bool, typer.Option("--check", help="Only ask the committed file its questions.")] = False,
) -> None:
    """Make the demo model again from its recipe and seed, or check the committed one."""
    from trainer import demo

    if check:
        answers = demo.check(demo.FILE)
        for problem in answers.wrong:
            typer.echo(problem)
        typer.echo(answers)
        if not answers.good:
            raise typer.Exit(1)
    else:
        demo.build(work, typer.echo)
