"""Errors of a call, and how each is shown and with which exit status the command ends.

CallError                the command line's own: one line on standard error, exit status 1
├── UsageError           the words are wrong: points to the help page of the function they belong to
├── FunctionFailed       the module raised an exception, or a value could not be used
└── ExecFailed           a command in a container failed: its output is shown, its exit code becomes ours
"""

from __future__ import annotations

import secrets

PROGRAM = "dagger"
"""How usage lines and errors name the program. `agent-loop call` takes the words of `dagger call` and answers
as it does, line for line, so that a person, a script or a page of documentation may use either."""


def trace() -> str:
    """A trace number in Dagger's form; it ends every message that came through a function."""
    return f"[traceparent:{secrets.token_hex(16)}-{secrets.token_hex(8)}]"


class CallError(Exception):
    """A call cannot go on. `text` is what standard error shows after `Error: `."""

    status = 1

    @property
    def text(self) -> str:
        """The message with its trace number, as Dagger prints it."""
        message = str(self)
        return message if "[traceparent:" in message else f"{message} {trace()}"


class PlainError(CallError):
    """A message that is shown as it came, without a trace number."""

    @property
    def text(self) -> str:
        return str(self)


class UsageError(CallError):
    """Words that make no call. `command` is the command line so far, whose help page explains."""

    def __init__(self, message: str, command: str):
        super().__init__(message)
        self.command = command

    @property
    def text(self) -> str:
        return f"{super().text}\nRun '{self.command} --help' for usage."


class FunctionFailed(CallError):
    """The module's code raised, or its process ended without an answer."""


class ExecFailed(CallError):
    """A command in a container ended badly; `status` is its exit code."""

    def __init__(self, message: str, exit_code: int, stdout: str, stderr: str):
        super().__init__(message)
        self.status = exit_code if 0 < exit_code < 256 else 1
        self.stdout, self.stderr = stdout, stderr

    @property
    def text(self) -> str:
        lines = [super().text]
        if self.stdout:
            lines += ["Stdout:", self.stdout]
        if self.stderr:
            lines += ["Stderr:", self.stderr]
        return "\n".join(lines)
