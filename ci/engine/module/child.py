"""What runs in the module's own process: Dagger's real entry point, once for every call that is asked for.

Started by path, never imported by the engine. The first line that it reads from one descriptor is its environment as
JSON, every other asks for a call: it runs `dagger.mod.cli.main` (which asks the session what to do) and writes the
entry point's status to another descriptor. The process and its connection stay for the whole command line, so that a
constructor, a function and a function of its result cost one `import dagger` and one look at the schema, not three.
What dagger imports of others comes first, while the engine finds out what the environment is, and what a module does
not need is left out: together a third of the time that `import dagger` takes.
"""

import contextlib
import gc
import importlib
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

WITHOUT = ("dagger.provisioning", "httpx._main", "psutil")
"""What dagger and others do without where it is not installed: how to find an engine, a command line, processes."""


def main() -> None:
    requests, answers = (int(word) for word in sys.argv[1:3])
    del sys.argv[1:]
    gc.disable()  # what is imported stays: looking for garbage in it is a tenth of the time that importing takes
    for name in WITHOUT:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it fails
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

        for name in WITHOUT:
            del sys.modules[name]  # the module may want it
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
    """Let the methods of classes that beartype is put on meanwhile get their checks when they are first looked at.

    The client has 841 of them in some seventy classes, and beartype writes and compiles the checks of each.
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
    """A class whose own methods `check` comes to one by one."""
    for name, method in list(vars(kind).items()):
        if isinstance(method, FunctionType):
            setattr(kind, name, _Unchecked(kind, name, method, check))
    return kind


class _Unchecked:
    """In a method's place until somebody looks at it. Not a function itself, so `check` goes past it."""

    def __init__(self, kind: type, name: str, method: FunctionType, check) -> None:
        self._kind, self._name, self._method, self._check = kind, name, method, check

    def __get__(self, instance, owner=None):
        setattr(self._kind, self._name, self._method)
        self._check(self._kind)
        return getattr(owner if instance is None else instance, self._name)


async def _stay() -> None:
    """Leave a connection open."""


if __name__ == "__main__":
    main()
