"""Commands that change a stack take turns; whatever ends one gives its turn back."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from ci.stack import cli, project, turns, up
from ci.stack.errors import StackError
from ci.stack.project import Project
from ci.stack.up import Context

HOLDER = """
import sys, time
from pathlib import Path
from ci.stack import turns
with turns.taken(Path(sys.argv[1]), print):
    print("has it", flush=True)
    time.sleep(60)
"""


def test_a_second_command_says_that_it_waits_and_goes_on(tmp_path: Path) -> None:
    """It has its turn when the first is done, and not before; nothing is left in the folder."""
    order: list[str] = []
    waits = threading.Event()

    def said(line: str) -> None:
        order.append(line)
        waits.set()

    def second() -> None:
        with turns.taken(tmp_path, said):
            order.append("second")

    with turns.taken(tmp_path, order.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join(30)
    assert [line.split(",")[0] for line in order] == [
        "Another agent-loop command changes this stack",
        "first",
        "second",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_command_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The lock is the process's, so it needs no tidying up."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        holder.kill()
        holder.wait()
    said: list[str] = []
    with turns.taken(tmp_path, said.append):
        assert said == []


def test_up_has_its_turn_for_all_but_the_models_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`down` must not wait for gigabytes; everything else runs by then."""
    order: list[str] = []

    @contextmanager
    def taken(state: Path, say: object) -> Generator[None]:
        order.append(f"taken in {state}")
        yield
        order.append("given back")

    def step(stack: Project, context: Context) -> Project:
        order.append("step")
        return stack

    monkeypatch.setattr(turns, "taken", taken)
    monkeypatch.setattr(up, "STEPS", (step, step))
    monkeypatch.setattr(up, "pull_model", step)
    up.up(Project(state=tmp_path), Context(print, lambda lines: None))
    assert order == [f"taken in {tmp_path}", "step", "step", "given back", "step"]


CHANGES: dict[str, Callable[[], None]] = {
    "down": lambda: cli.down("serve"),
    "upgrade": cli.upgrade,
    "rollback": cli.rollback,
    "clean": lambda: cli.clean(yes=True),
    "model use": lambda: cli.model_use("tiny"),
}


@pytest.mark.parametrize("command", CHANGES)
def test_every_command_that_changes_a_stack_takes_a_turn(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it looks at anything."""
    monkeypatch.setenv("AGENT_LOOP_STATE", str(tmp_path))
    project.remember(Project(state=tmp_path))

    def refused(state: Path, say: object) -> None:
        raise StackError(f"a turn in {state}")

    monkeypatch.setattr(turns, "taken", refused)
    with pytest.raises(typer.Exit):
        CHANGES[command]()
    assert capsys.readouterr().err == f"agent-loop: a turn in {tmp_path}\n"
