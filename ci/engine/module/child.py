"""What runs in the module's own process: Dagger's real entry point, once for every call that is asked for.

Started by path, never imported by the engine. The first line that it reads from one descriptor is its environment as
JSON, every other asks for a call: it runs `dagger.mod.cli:app` (which asks the session what to do) and writes the entry
point's status to another descriptor. The process stays for the whole command line, so that a constructor, a function
and a function of its result cost one `import dagger` and not three. What that imports of others comes first, while the
engine finds out what the environment is.
"""

import contextlib
import importlib
import json
import os
import sys

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


def main() -> None:
    requests, answers = (int(word) for word in sys.argv[1:3])
    del sys.argv[1:]
    for name in DEPENDENCIES:
        with contextlib.suppress(ImportError):  # another version of dagger may do without
            importlib.import_module(name)

    with os.fdopen(requests) as asked, os.fdopen(answers, "w") as told:
        first = asked.readline()
        if not first:  # no module was opened after all
            return
        environment = json.loads(first)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[0:0] = environment["PYTHONPATH"].split(os.pathsep)
        from dagger.mod.cli import app

        for _ in asked:
            try:
                status = app() or 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            sys.stdout.flush()
            print(status, file=told, flush=True)


if __name__ == "__main__":
    main()
