"""What a run is doing, in a file that other commands read: `train-status`, `train-stop`, `train-monitor`.

The writer replaces `RUN/status.json` whole. A run counts as running only while its process lives: the file holds the
process's number and its start time, so a number that was given to another process later is not mistaken for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .errors import RunBusy

FILE = "status.json"
STOP = ".stop"
"""A file whose presence asks the run to save and end: it reaches a run in another container or on another machine."""
ALIVE = ("starting", "running")


@dataclass(frozen=True)
class Status:
    """`state`: starting, running, finished, stopped, failed; or `lost` (read only): the process is gone."""

    state: str
    step: int = 0
    total: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    seconds_left: float | None = None
    message: str = ""
    pid: int = 0
    started: str = ""
    """The process's start time as the kernel counts it."""
    host: str = ""
    updated: float = 0.0


def write(run: Path, status: Status) -> None:
    """Replace the run's status by this one, signed with this process."""
    pid = os.getpid()
    signed = replace(
        status, pid=pid, started=_start_time(pid), host=socket.gethostname(), updated=round(time.time(), 3)
    )
    temporary = run / f".{FILE}-{pid}"
    temporary.write_text(json.dumps(asdict(signed), indent=2) + "\n")
    temporary.replace(run / FILE)


def read(run: Path) -> Status | None:
    """The run's status; None where there is none. A dead process's `running` reads `lost`."""
    try:
        status = Status(**json.loads((run / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if status.state in ALIVE and not alive(status):
        return replace(status, state="lost")
    return status


def ask_to_stop(run: Path) -> None:
    """Ask the run to save and end after its step."""
    (run / STOP).touch()


def asked_to_stop(run: Path) -> bool:
    """Whether somebody asked."""
    return (run / STOP).exists()


def forget_stop(run: Path) -> None:
    """A run that begins or goes on is not stopped by an old wish."""
    (run / STOP).unlink(missing_ok=True)


def alive(status: Status) -> bool:
    """Whether the process that wrote the status still runs; a run on another host is believed for two minutes."""
    if status.host != socket.gethostname():
        return time.time() - status.updated < 120
    return status.pid > 0 and _start_time(status.pid) == status.started != ""


def runs(output: Path) -> list[Path]:
    """The run folders in `output`, the one changed last first."""
    found = [p.parent for p in output.glob("*/config.json")]
    return sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)


@contextmanager
def only_one(run: Path) -> Generator[None]:
    """Hold the run for this process. Raises RunBusy where another holds it; a dead one's hold ends with it."""
    with (run / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            status = read(run)
            who = f" (process {status.pid} on {status.host})" if status else ""
            raise RunBusy(
                f"Run in use, {run}{who}. Wait for it, stop it with train-stop {run}, or use another --run-id."
            ) from None
        yield


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
