"""`agent-loop call`, `functions` and `check`: a Dagger module's functions from the command line, without an engine.

    agent-loop call build-runtime export-image --name agent-loop:dev
    agent-loop functions
    agent-loop check -l

Words, output and exit status are those of `dagger call` (recorded in tests/conformance/module-calls.jsonl).
Exit status: 0 done, 1 told on standard error why not, 130 interrupted; a command that fails in a container gives its
own code.
A call goes through small steps: find the module, know its types (kept on disk), parse the words, open a session,
run, print. Only the module's own process imports dagger.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.engine.ending import on_end
from ci.engine.errors import EngineError
from ci.engine.module.errors import PROGRAM, CallError, PlainError, UsageError
from ci.engine.module.names import kebab
from ci.engine.module.session import OpenModule, opened, registered
from ci.engine.module.source import ModuleSource, find
from ci.engine.module.types import OBJECT, Function, TypeRef
from ci.engine.session import Options as SessionOptions

from . import help
from . import print as call_print
from .args import OPTIONS, CallLine, Options, Step, leading_options, parse, take_options
from .core import TypeCatalog
from .invoke import NOTHING, Invocation, Saved, check_steps
from .load import Loader

INTERRUPTED = 130


Opener = Callable[..., AbstractContextManager[OpenModule]]
"""Opens a module in a session (`module.session.opened`); a caller with many calls may hand out one that is open."""


def main(argv: Sequence[str], open_module: Opener = opened) -> int:
    """`agent-loop call [options] [constructor arguments] FUNCTION [arguments] [FUNCTION [arguments]]…`."""
    return told(lambda: _call(list(argv), open_module))


def functions(argv: Sequence[str]) -> int:
    """`agent-loop functions`: list what can be called."""
    return told(lambda: _functions(list(argv)))


def check(argv: Sequence[str], open_module: Opener = opened) -> int:
    """`agent-loop check [-l] [NAME]…`: run the module's checks, or those named."""
    return told(lambda: _check(list(argv), open_module))


def program(argv: Sequence[str], open_module: Opener = opened) -> int:
    """`[options] call|functions|check …`: the program's own flags may stand before the command."""
    words = list(argv)
    try:
        leading = leading_options(words, PROGRAM)
    except UsageError as error:
        print(f"Error: {error.text}", file=sys.stderr)
        return error.status
    name = words.pop(0) if words else ""
    match name:
        case "call":
            return main([*leading, *words], open_module)
        case "check":
            return check([*leading, *words], open_module)
        case "functions":
            return functions([*leading, *words])
        case _:
            print(f"One of call, functions, check must follow, '{name}' was given.", file=sys.stderr)
            return 2


def told(work: Callable[[], int]) -> int:
    """Run, and turn what goes wrong into one message and an exit status."""
    try:
        with on_end():
            return work()
    except CallError as error:
        print(f"Error: {error.text}", file=sys.stderr)
        return error.status
    except EngineError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # a fault of ours: still one line, and where it happened
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        print(
            f"Error: Unexpected {type(error).__name__}, {error}, {where}. Report it with the command.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing is left running.", file=sys.stderr)
        return INTERRUPTED


@dataclass(frozen=True)
class Target:
    """The module that a command line is about."""

    source: ModuleSource
    catalog: TypeCatalog
    show: Callable[[str], None]

    @classmethod
    def of(cls, given: Options) -> Target:
        """Find the module that the options name and learn its types."""
        source = find(given.last("mod"))
        show = _silent if given.has("silent") else _progress
        return cls(source, TypeCatalog.of(source.name, registered(source, show)), show)


def _silent(line: str) -> None:
    pass


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _call(words: list[str], open_module: Opener) -> int:
    target = Target.of(early_options(words))
    line = parse(words, target.catalog)
    if line.options.has("help"):
        sys.stdout.write(help.help_page(line, target.catalog))
        return 0
    output = line.options.last("output")
    result = _run(target, line, open_module, Path(output) if output else None)
    _print(result, line.options)
    return 0


def _run(target: Target, line: CallLine, open_module: Opener, save_to: Path | None = None) -> Any:
    catalog, source = target.catalog, target.source
    options = session_options(line.options, target.show)
    with open_module(source, target.show, options) as module:
        loader = Loader(module.api, source)
        invocation = Invocation(source.name, catalog, module.api, module.functions, loader)
        if not line.steps:
            invocation.construct(line.constructor)
            return "Query\n"
        return invocation.run(line, save_to.absolute() if save_to else None)


def _print(result: Any, options: Options) -> None:
    if result is NOTHING:
        return
    output = options.last("output")
    if isinstance(result, Saved):
        print(f'Saved to "{result.path}".', file=sys.stderr)
        return
    text = call_print.as_json(result) if options.has("json") else call_print.plain(result)
    if output and call_print.is_object(result):
        raise PlainError(f"Result cannot be saved, {text.strip()}, {output}. Chain on to a file, a folder or a text.")
    sys.stdout.write(text)
    sys.stdout.flush()
    if output:
        path = Path(output).absolute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise PlainError(f"Result cannot be saved, {why}, {path}. Choose another place.") from None
        print(f'Saved output to "{path}".', file=sys.stderr)


def _functions(words: list[str]) -> int:
    options = take_options(words, f"{PROGRAM} functions")
    if options.has("help"):
        print("USAGE\n  dagger functions [options]\n\nLists the functions of the module in the current folder.")
        return 0
    _no_more(words, f"{PROGRAM} functions")
    catalog = Target.of(options).catalog
    main_object = catalog.object(catalog.main)
    assert main_object is not None
    sys.stdout.write(help.functions_page(main_object))
    return 0


def _check(words: list[str], open_module: Opener) -> int:
    command = f"{PROGRAM} check"
    listing = [w for w in words if w in ("-l", "--list")]
    words = [w for w in words if w not in listing]
    options = take_options(words, command)
    if options.has("help"):
        print("USAGE\n  dagger check [options] [check]...\n\nRuns the module's checks, or lists them with -l.")
        return 0
    target = Target.of(options)
    main_object = target.catalog.object(target.catalog.main)
    assert main_object is not None
    if listing:
        sys.stdout.write(help.checks_page(target.source.name, main_object))
        return 0
    chosen = _chosen(words, check_steps(main_object.functions), target.source.name, command)
    status = 0
    for function in chosen:
        step = Step(function, main_object, {}, f"{PROGRAM} call {kebab(function.name)}")
        constructor = main_object.constructor or Function("", TypeRef(OBJECT, main_object.name))
        line = CallLine(Step(constructor, main_object, {}, f"{PROGRAM} call"), (step,), options)
        status = max(status, told(lambda line=line: _checked(target, line, open_module)))
    return status


def _checked(target: Target, line: CallLine, open_module: Opener) -> int:
    _run(target, line, open_module)
    return 0


def _chosen(words: Sequence[str], checks: Sequence[Function], module: str, command: str) -> list[Function]:
    by_name = {kebab(f.name): f for f in checks}
    names = [word.removeprefix(f"{kebab(module)}:") for word in words]
    for name in names:
        if name not in by_name:
            raise UsageError(f'unknown check "{name}", this module has {", ".join(by_name) or "none"}', command)
    return [by_name[name] for name in names] if names else list(checks)


def _no_more(words: Sequence[str], command: str) -> None:
    if words:
        raise UsageError(f'unknown command "{words[0]}" for "{command}"', command)


def early_options(words: Sequence[str]) -> Options:
    """The program's own flags that stand before the first function; constructor arguments are passed over.

    They say where the module is, which must be known before its arguments can be told from words.
    """
    found, queue = Options(), list(words)
    values = {f"--{o.name}": o for o in OPTIONS} | {f"-{o.short}": o for o in OPTIONS if o.short}
    while queue and queue[0].startswith("-"):
        word, equals, text = queue.pop(0).partition("=")
        option = values.get(word)
        takes = option.takes_value if option else bool(queue) and not queue[0].startswith("-") and len(queue) > 1
        if not equals and takes and queue:
            text = queue.pop(0)
        if option:
            found.given.setdefault(option.name, []).append(text)
    return found


def session_options(options: Options, show: Callable[[str], None]) -> SessionOptions:
    """How the session builds: the environment's settings, with the command line's caches added."""
    import dataclasses
    import os

    base = SessionOptions.from_environment(os.environ)
    return dataclasses.replace(
        base,
        cache_to=(*base.cache_to, *options.all("cache-to")),
        cache_from=(*base.cache_from, *options.all("cache-from")),
        progress=show,
    )


if __name__ == "__main__":
    sys.exit(program(sys.argv[1:]))
