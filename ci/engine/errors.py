"""What can go wrong in the embedded engine.

EngineError              one line for the person; the base of all below
+-- FieldError           a field cannot be answered: becomes a GraphQL error with the field's path
|   +-- ExecError        a step ended with a code that was not expected (`dagger.ExecError` at the client)
|   +-- Unsupported      a field that needs Dagger's own engine
+-- BuildFailed          BuildKit refused or broke; carries what it printed
+-- SetupError           Docker, BuildKit, busybox or a base image is missing; says what to install
+-- RequestError         a query that is no valid query of this schema (HTTP 422 or 200, see `query.py`)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ENGINE_ROOT = "/tmp/rootfs0"  # noqa: S108 - no place of ours: the name a Dagger engine gives a mounted tree in its messages


class EngineError(Exception):
    """`Problem, value, place. What to do.` in one line."""


class FieldError(EngineError):
    """A field cannot be answered.

    `lazy` marks what happens while a tree is evaluated rather than when a field is called: a Dagger
    engine ends the message of such an error with a trace number, and so do we.
    """

    def __init__(self, message: str, *, lazy: bool = False, path: Sequence[str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.lazy = lazy
        self.path = path
        """Overrides the path that the failing field has."""

    def extensions(self) -> dict[str, Any] | None:
        """GraphQL `extensions` of the answer, or None."""
        return None

    def text(self) -> str:
        """The message as a Dagger engine words it."""
        if not self.lazy:
            return self.message
        return f"{self.message} [traceparent:{os.urandom(16).hex()}-{os.urandom(8).hex()}]"


class ExecError(FieldError):
    """A step ended with a code that was not expected, or could not be started (`exit_code` -1)."""

    OUTPUT_LIMIT = 100 * 1024

    def __init__(
        self, cmd: Sequence[str], exit_code: int, stdout: str, stderr: str, message: str | None = None
    ) -> None:
        super().__init__(message or f"exit code: {exit_code}", lazy=True)
        self.cmd = list(cmd)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr

    def extensions(self) -> dict[str, Any]:
        """`cmd`, `exitCode`, `stdout` and `stderr`; outputs lose trailing white space and all but the last 100 KiB."""
        return {
            "_type": "EXEC_ERROR",
            "cmd": self.cmd,
            "exitCode": self.exit_code,
            "stdout": _last(self.stdout.rstrip(), self.OUTPUT_LIMIT),
            "stderr": _last(self.stderr.rstrip(), self.OUTPUT_LIMIT),
        }


def _last(text: str, limit: int) -> str:
    raw = text.encode()
    if len(raw) <= limit:
        return text
    return f"[omitting {len(raw) - limit} bytes]...\n" + raw[-limit:].decode(errors="replace")


class Unsupported(FieldError):
    """A field that BuildKit alone cannot serve."""

    def __init__(self, what: str, way_out: str = "Run it on a Dagger engine: 'dagger call ...'.") -> None:
        super().__init__(f"{what} needs a Dagger engine. {way_out}")


class SetupError(FieldError):
    """Something outside is missing; the message says what to install."""


@dataclass
class BuildFailed(EngineError):
    """BuildKit ended with an error."""

    reason: str
    log: str = ""
    exit_code: int | None = None
    """The failing step's own exit code, if a step failed."""
    stage: str | None = None
    """The failing step's folder in the build context (a step of ours), if BuildKit named it."""
    stdout: str = ""
    stderr: str = ""
    """The failing step's output, where the build was told to keep the two apart."""

    def __str__(self) -> str:
        return self.reason


class RequestError(EngineError):
    """A request that cannot be run as a query: GraphQL errors and the HTTP status that goes with them."""

    def __init__(self, errors: Sequence[Mapping[str, Any]], status: int) -> None:
        super().__init__("; ".join(str(e["message"]) for e in errors))
        self.errors = [dict(e) for e in errors]
        self.status = status
