"""`agent-loop session` and `agent-loop run`: the embedded engine for any Dagger program.

Both print nothing on standard output but what the protocol or the program prints; what the engine has to say
goes to standard error. Exit status of `run`: the program's own, 128 + n where signal n ended it; 127 where it cannot
be started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from .ending import on_end

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command()
def session(
    workdir: Annotated[Path | None, typer.Option(help="Folder that relative host paths start at.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Accepted for `dagger session`, not used.")] = None,
    version: Annotated[str | None, typer.Option(help="Accepted for `dagger session`, not used.")] = None,
) -> None:
    """Open a session, print its port and token as one JSON line, serve until standard input closes."""
    from .session import Session

    ended = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    with on_end(lambda *_: ended.set()), Session(workdir=workdir) as opened:
        print(json.dumps({"port": opened.port, "session_token": opened.token}), flush=True)
        threading.Thread(target=_until_closed, args=(ended,), daemon=True).start()
        ended.wait()


def _until_closed(ended: threading.Event) -> None:
    # the bare descriptor: a thread that holds the buffered reader's lock makes the interpreter's end an abort
    while os.read(0, 4096):
        pass
    ended.set()


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
)
def run(
    command: Annotated[list[str], typer.Argument(help="Program and its arguments.")],
    workdir: Annotated[Path | None, typer.Option(help="Folder that relative host paths start at.")] = None,
) -> None:
    """Run a program in a session; its exit status is the program's."""
    from .session import Session

    signals = Signals()
    with on_end(signals.take), Session(workdir=workdir) as opened:
        if signals.received:
            raise typer.Exit(128 + signals.received[0])
        try:
            signals.child = subprocess.Popen(command, env={**os.environ, **opened.environment()})
        except OSError as error:
            print(f"Cannot run {command[0]}: {(error.strerror or '').lower()}. Check the name.", file=sys.stderr)
            raise typer.Exit(127) from None
        for number in signals.received:  # that came while it started
            signals.child.send_signal(number)
        raise typer.Exit(_wait(signals.child))


class Signals:
    """What came of the signals that end a program, and who gets them instead of us."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.child: subprocess.Popen[bytes] | None = None

    def take(self, number: int, frame: FrameType | None) -> None:
        """The child ends as it likes; our own end follows from that, with the session closed."""
        self.received.append(number)
        if self.child is not None:
            self.child.send_signal(number)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The child's exit status; Ctrl-C reaches it through the terminal, a second one ends it."""
    interrupted = 0
    while True:
        try:
            code = child.wait()
            return 128 - code if code < 0 else code
        except KeyboardInterrupt:
            interrupted += 1
            if interrupted > 1:
                child.kill()
