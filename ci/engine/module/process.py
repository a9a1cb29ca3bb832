"""The module's process, seen from outside: start it, let it serve one call, end it.

    with ready().begin(environment, show=print) as process:
        status = process.serve()      # the call that the session announces

What the module prints, and its tracebacks, go to `show` line by line; nothing of it reaches standard output.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

CHILD = Path(__file__).with_name("child.py")


class ModuleProcess:
    """One process of a module. It begins importing at once; `serve` waits until it has answered one call."""

    def __init__(self) -> None:
        """Start it in the working folder, with nothing of a module yet."""
        self._show: Callable[[str], None] = lambda line: None
        self._last = deque[str](maxlen=20)
        child_in, asked = os.pipe()
        told, child_out = os.pipe()
        self._process = subprocess.Popen(
            # -P: the engine's own folder must not shadow modules of the same name.
            [sys.executable, "-P", str(CHILD), str(child_in), str(child_out)],
            env=inherited() | {"OTEL_SDK_DISABLED": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(child_in, child_out),
            process_group=0,
            text=True,
            errors="replace",
        )
        os.close(child_in)
        os.close(child_out)
        self._asked: IO[str] = os.fdopen(asked, "w")
        self._told: IO[str] = os.fdopen(told)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def begin(self, environment: Mapping[str, str], show: Callable[[str], None]) -> ModuleProcess:
        """Say which module it is for, and who hears what it prints."""
        self._show = show
        self._reader.start()
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(dict(environment)), file=self._asked, flush=True)
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last.append(line.rstrip("\n"))
            self._show(line.rstrip("\n"))

    def serve(self) -> int | None:
        """Let the entry point run once. Returns its status, or None when the process ended instead."""
        with contextlib.suppress(BrokenPipeError):
            print("call", file=self._asked, flush=True)
        answer = self._told.readline()
        return int(answer) if answer else None

    def last_words(self) -> str:
        """The last line that the process printed, for a process that ended without an answer."""
        self._reader.join(5)
        return next((line for line in reversed(self._last) if line.strip()), "")

    def close(self) -> None:
        """End the process. It holds nothing that an orderly end would save, so it is not waited for."""
        with contextlib.suppress(OSError):
            self._asked.close()
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader.ident is not None:
            self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._told.close()

    def __enter__(self) -> ModuleProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None):
        self.close()


_ahead: list[ModuleProcess] = []


def ahead(argv: Sequence[str]) -> None:
    """Start a process before the engine itself is imported; the first module that is opened takes it.

    Not where the words ask for help or a list, which needs none.
    """
    if {"-h", "--help", "-l", "--list"} & {*argv}:
        return
    process = ModuleProcess()
    _ahead.append(process)
    atexit.register(lambda: process.close() if process in _ahead else None)


def ready() -> ModuleProcess:
    """The process that was started ahead, or a new one."""
    return _ahead.pop() if _ahead else ModuleProcess()


def inherited() -> dict[str, str]:
    """What a module's process has of our own environment: all but another session's."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("DAGGER_", "OTEL_"))}
