"""`agent-loop plan`, `policy` and `dockerfile`: see, check and leave what a function would build. Nothing is built.

Words after the function are its arguments, as `agent-loop call` takes them. Exit status: 0 done, 1 told why not or
a policy is broken, 2 a setting of the policies is wrong.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ci.engine.call.args import CallLine, Options, parse
from ci.engine.call.cli import Target, told
from ci.engine.module import errors as call_errors
from ci.engine.module.names import kebab

from . import policy as policies
from . import settings as policy_config
from .planner import Planned, image_functions, planning
from .rules import RULES
from .text import tree

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

WORDS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["--help"]}

Module = Annotated[str | None, typer.Option("--mod", "-m", help="Folder of the module; default: the nearest above")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the module prints")]


@app.callback()
def begin() -> None:
    """See, check and leave what a function would build."""


@app.command(context_settings=WORDS)
def plan(
    context: typer.Context,
    function: Annotated[str, typer.Argument(help="The function, as `agent-loop functions` lists it")],
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON")] = False,
    module: Module = None,
    verbose: Verbose = False,
) -> None:
    """Show what a function would build, as a tree or as JSON. Secrets are shown as ***."""

    def work() -> int:
        target = _target(module, verbose)
        planned = _planned(target, [function, *context.args])
        if as_json:
            print(json.dumps(planned.to_json(target.source.name), indent=2, ensure_ascii=False))
        else:
            sys.stdout.write(tree(planned))
        return 0

    raise typer.Exit(told(work))


@app.command(context_settings=WORDS)
def policy(
    context: typer.Context,
    function: Annotated[str | None, typer.Argument(help="One function; default: all that make something")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON")] = False,
    module: Module = None,
    verbose: Verbose = False,
) -> None:
    """Check what functions would build against the policies. Fails when one is broken and not silenced."""

    def work() -> int:
        target = _target(module, verbose)
        folders = dict.fromkeys((target.source.root, target.source.source))
        settings = policy_config.load(list(folders), RULES)
        findings: list[policies.Finding] = []
        notes: list[str] = []
        with planning(target.source, target.catalog, target.show) as planner:
            chosen = image_functions(target.catalog)
            if function is not None:
                findings += policies.check(planner.plan(_line(target, [function, *context.args])), settings)
                chosen = []
            for each in chosen:
                try:
                    findings += policies.check(planner.of(each), settings)
                except call_errors.CallError as error:
                    why, name = str(error).rstrip("."), kebab(each.name)
                    notes.append(f"{name}: not checked, {why}. Give its arguments: policy {name} …")
        return _report(findings, notes, settings, len(chosen) or 1, whole=function is None, as_json=as_json)

    raise typer.Exit(_settled(work))


def _report(
    findings: list[policies.Finding],
    notes: list[str],
    settings: policy_config.Settings,
    count: int,
    *,
    whole: bool,
    as_json: bool,
) -> int:
    broken = [f for f in findings if f.silenced is None]
    if whole:
        notes += [
            f"silence not needed any more: {s.rule} for {s.function}"
            for s in policies.unused(settings.silences, findings)
        ]
    if as_json:
        told_ = [
            {"function": f.function, "rule": f.rule, "message": f.message, "silenced": f.silenced and f.silenced.reason}
            for f in findings
        ]
        print(json.dumps({"findings": told_, "notes": notes}, indent=2, ensure_ascii=False))
    else:
        for line in [*findings, *notes]:
            print(line)
        rules = len(settings.rules or RULES)
        print(f"{count} functions, {rules} policies: {len(broken)} broken, {len(findings) - len(broken)} silenced.")
    return 1 if broken else 0


@app.command(context_settings=WORDS)
def dockerfile(
    context: typer.Context,
    function: Annotated[str, typer.Argument(help="The function, as `agent-loop functions` lists it")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write; default: print it")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds something already")] = False,
    module: Module = None,
    verbose: Verbose = False,
) -> None:
    """Write what a function would build as a plain Dockerfile with its contexts, for `docker buildx build`."""

    def work() -> int:
        target = _target(module, verbose)
        if output is not None and not force and output.exists() and (output.is_file() or any(output.iterdir())):
            raise call_errors.PlainError(f"Folder is not empty, {output}. Name another or add --force.")
        with planning(target.source, target.catalog, target.show) as planner:
            planned = planner.plan(_line(target, [function, *context.args]))
            if not planned.nodes:
                raise call_errors.PlainError(f"{planned.function} makes no image or folder, but {planned.returns}.")
            for name, node in planned.nodes.items():
                rendered = planner.render(node)
                if output is None:
                    sys.stdout.write(rendered.text)
                    folder = "FOLDER"
                else:
                    folder = str(
                        output if len(planned.nodes) == 1 else output / re.sub(r"[^\w.-]+", "-", name).strip("-")
                    )
                    rendered.write(Path(folder))
                for line in [*planned.notes(), *rendered.notes]:
                    print(f"note: {line}", file=sys.stderr)
                print(f"build it: {shlex.join(rendered.command(folder))}", file=sys.stderr)
        return 0

    raise typer.Exit(told(work))


def _settled(work: Callable[[], int]) -> int:
    """Run; a wrong setting of the policies has a status of its own."""

    def settled() -> int:
        try:
            return work()
        except policy_config.BadSettings as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2

    return told(settled)


def _target(module: str | None, verbose: bool) -> Target:
    given = {"mod": [module]} if module else {}
    return Target.of(Options(given if verbose else {**given, "silent": [""]}))


def _line(target: Target, words: list[str]) -> CallLine:
    line = parse(words, target.catalog)
    if not line.steps:
        raise call_errors.UsageError("no function given", f"{call_errors.PROGRAM} call")
    return line


def _planned(target: Target, words: list[str]) -> Planned:
    with planning(target.source, target.catalog, target.show) as planner:
        return planner.plan(_line(target, words))


if __name__ == "__main__":
    app()
