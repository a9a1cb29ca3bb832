"""What runs in the module's own process: Dagger's real entry point, once for every call that is asked for.

Started by path, never imported by the engine. It reads a line for each call from one descriptor, runs
`dagger.mod.cli:app` (which asks the session what to do) and writes the entry point's status to another. The
process stays for the whole command line, so that a constructor, a function and a function of its result cost one
`import dagger` and not three.
"""

import os
import sys


def main() -> None:
    requests, answers = (int(word) for word in sys.argv[1:3])
    del sys.argv[1:]
    from dagger.mod.cli import app

    with os.fdopen(requests) as asked, os.fdopen(answers, "w") as told:
        for _ in asked:
            try:
                status = app() or 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            sys.stdout.flush()
            print(status, file=told, flush=True)


if __name__ == "__main__":
    main()
