"""What runs in the module's own process: Dagger's real entry point, once for every call that is asked for.

Started by path, never imported by the engine. The first line that it reads from one descriptor is its environment as
JSON, every other asks for a call: it runs `dagger.mod.cli.main` (which asks the session what to do) and writes the
entry point's status to another descriptor. The process and its connection stay for the whole command line, so that a
constructor, a function and a function of its result cost one `import dagger` and one look at the schema, not three.
What dagger imports of others comes first, while the engine finds out what the environment is, and what a module does
not need is left out: together a third of the time that `import dagger` takes.
"""

import contextlib
import functools
import gc
import importlib
import inspect
import json
import os
import sys
from types import FunctionType

DEPENDENCIES = (
    "beartype.door",
    "cattrs",
    "gql.client",
    "gql.dsl",
    "httpx",
    "opentelemetry.instrumentation.logging",
    "opentelemetry.sdk.trace",
    "rich.console",
)
"""What dagger imports of others: half of its time. Dagger itself cannot come first, it reads the environment then."""

WITHOUT = ("dagger.provisioning", "httpx._main")
"""Finding an engine, which a module's container has no part for either, and the command line of httpx."""


def main() -> None:
    requests, answers = (int(word) for word in sys.argv[1:3])
    del sys.argv[1:]
    gc.disable()  # what is imported stays: looking for garbage in it is a tenth of the time that importing takes
    for name in WITHOUT:
        sys.modules[name] = None  # type: ignore[assignment]  # importing them fails, which dagger and httpx allow for
    for name in DEPENDENCIES:
        with contextlib.suppress(ImportError):  # another version of dagger may do without
            importlib.import_module(name)

    with os.fdopen(requests) as asked, os.fdopen(answers, "w") as told:
        first = asked.readline()
        if not first:  # no module was opened after all
            return None
        environment = json.loads(first)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[0:0] = environment["PYTHONPATH"].split(os.pathsep)
        import anyio

        with checks_when_used():
            import dagger.mod.cli

        gc.freeze()
        gc.enable()

        def answer(status: object) -> None:
            sys.stdout.flush()
            print(status if isinstance(status, int) else 1, file=told, flush=True)

        async def serve() -> None:
            connection = await dagger.connect()
            connection.close = _stay  # the entry point closes it after each call
            try:
                for _ in asked:
                    answer(await dagger.mod.cli.main() or 0)
            finally:
                del connection.close
                await connection.close()

        while True:
            try:
                return anyio.run(serve)
            except SystemExit as end:  # by a function
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
                answer(end.code or 0)


@contextlib.contextmanager
def checks_when_used():
    """Let the classes that beartype is put on meanwhile get their checks when the first of their methods is called.

    The client has some seventy of them with 841 methods, whose checks beartype writes and compiles one by one.
    """
    try:
        import beartype
    except ImportError:  # another version of dagger may do without
        yield
        return
    original = beartype.beartype

    def deferring(*args, **kwargs):
        made = original(*args, **kwargs)
        return made if args else lambda kind: _deferred(kind, made) if isinstance(kind, type) else made(kind)

    beartype.beartype = deferring
    try:
        yield
    finally:
        beartype.beartype = original


def _deferred(kind: type, check) -> type:
    """A class that `check` comes to when the first of its own methods is called."""
    methods = {name: value for name, value in vars(kind).items() if isinstance(value, FunctionType)}

    @functools.cache
    def checked() -> None:
        for name, value in methods.items():
            setattr(kind, name, value)
        check(kind)

    def standing_in(name: str, method: FunctionType):
        @functools.wraps(method)
        def call(*args, **kwargs):
            checked()
            return getattr(kind, name)(*args, **kwargs)

        @functools.wraps(method)
        async def wait(*args, **kwargs):
            checked()
            return await getattr(kind, name)(*args, **kwargs)

        return wait if inspect.iscoroutinefunction(method) else call

    for name, method in methods.items():
        setattr(kind, name, standing_in(name, method))
    return kind


async def _stay() -> None:
    """Leave a connection open."""


if __name__ == "__main__":
    main()
