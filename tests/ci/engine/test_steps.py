"""How a step's program starts and ends, as on a Dagger engine. Needs Docker and the base `python`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ci.engine import Options, Session
from tests.ci.engine.asking import asked

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One session on the base images that were made here."""
    made = Session(workdir=tmp_path_factory.mktemp("work"), options=Options(bases="local"))
    yield made
    made.close()


def run(session: Session, before: list[str], *args: str, wanted: str = "stdout stderr exitCode") -> Any:
    """What a step answers whose failure is tolerated, after the fields `before` on the base."""
    return asked(session, *before, f"withExec(args:{json.dumps(args)},expect:ANY)", wanted)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("echo hi\n", "exec format error", id="no interpreter named"),
        pytest.param("", "exec format error", id="empty"),
        pytest.param("#!/nowhere/sh\necho hi\n", "no such file or directory", id="interpreter missing"),
        pytest.param("#!/bin/sh\r\necho hi\r\n", "no such file or directory", id="line ends of another system"),
        pytest.param("#!/etc/passwd\n", "permission denied", id="interpreter not executable"),
    ],
)
def test_a_program_that_the_kernel_refuses_is_told_apart(session: Session, text: str, reason: str) -> None:
    """No shell steps in for a file that cannot be started: exit code 1 and the kernel's reason, as Go words it."""
    file = [f'withNewFile(path:"/usr/local/bin/it",contents:{json.dumps(text)},permissions:493)']
    told = f"fork/exec /usr/local/bin/it: {reason}\n"
    assert run(session, file, "it") == {"stdout": "", "stderr": told, "exitCode": 1}


def test_a_script_with_blanks_before_its_interpreter_runs(session: Session) -> None:
    """What the kernel does start is started: blanks and an argument belong to the first line."""
    text = "#! /usr/bin/env python3\nprint(6 * 7)\n"
    file = [f'withNewFile(path:"/usr/local/bin/it",contents:{json.dumps(text)},permissions:493)']
    assert run(session, file, "it", wanted="stdout") == "42\n"


def test_a_step_ends_with_its_command(session: Session) -> None:
    """Processes left behind are ended, also those of a session of their own: what they would print never comes."""
    left = "(setsid sh -c 'sleep 3; echo late') & (sleep 3; echo later >&2) & echo now; exit 5"
    assert run(session, [], "sh", "-c", left) == {"stdout": "now\n", "stderr": "", "exitCode": 5}


def test_without_a_path_variable_there_is_a_default(session: Session) -> None:
    """A container without PATH finds programs where every Linux has them; an empty PATH finds none."""
    found = run(session, ['withoutEnvVariable(name:"PATH")'], "sh", "-c", "echo $PATH")
    assert found["stdout"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    none = run(session, ['withEnvVariable(name:"PATH",value:"")'], "sh", "-c", "true")
    assert (none["exitCode"], none["stderr"]) == (1, 'exec: "sh": executable file not found in $PATH\n')


def test_variables_that_no_shell_can_name_reach_the_command(session: Session) -> None:
    """Dots and dashes are allowed in a variable's name, and its program is still called by its own name."""
    odd = ['withEnvVariable(name:"npm.config-x",value:"it\'s $here")', 'withEnvVariable(name:"a-b",value:"")']
    code = "import os, sys; print(os.environ['npm.config-x'], os.environ['a-b'] == '', sys.argv[1:], sys.orig_argv[0])"
    found = run(session, odd, "python3", "-c", code, "an argument", wanted="stdout")
    assert found == "it's $here True ['an argument'] python3\n"


def test_a_base_holds_nothing_of_the_machine_that_made_it(session: Session) -> None:
    """Its host name and resolver are no part of it, so that equal inputs give equal digests anywhere."""
    rootfs = asked(
        session, "rootfs", 'name: file(path:"etc/hostname"){contents} resolver: file(path:"etc/resolv.conf"){contents}'
    )
    assert rootfs == {"name": {"contents": "localhost\n"}, "resolver": {"contents": ""}}


def test_files_are_read_behind_any_number_of_steps(session: Session) -> None:
    """Also by what a user's name is looked up in; a mount of so many layers is more than the kernel takes."""
    many = [f'withNewFile(path:"/{n}",contents:"{n}")' for n in range(60)]
    found = asked(session, *many, 'withNewFile(path:"/last",contents:"x",owner:"games")', 'file(path:"/9")', "contents")
    assert found == "9"
