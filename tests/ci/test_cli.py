"""The command line's root: a table that answers at once and loads only what is asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ci import cli


def every_command() -> list[cli.Command]:
    """All rows of the table."""
    return [command for group in cli.COMMANDS.values() for command in group]


class TestOverview:
    def test_help_lists_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`--help` names each command once with what it is for."""
        assert cli.main(["--help"]) == 0
        printed = capsys.readouterr().out
        for command in every_command():
            assert f"  {command.name} " in printed
            assert command.help in printed

    def test_help_imports_no_part(self) -> None:
        """The overview costs one small import: no part, no typer, no dagger."""
        probe = (
            "import sys; from ci.cli import main; main(['--help']);"
            "print([m for m in ('typer', 'dagger', 'torch', 'fastapi', 'ci.stack', 'ci.engine') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"

    def test_a_reader_that_goes_away_ends_it_without_a_word(self) -> None:
        """`agent-loop --help | head -1`: no traceback, and the status of a program that SIGPIPE ended."""
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([sys.executable, "-m", "ci.cli", "--help"], stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, b"")

    def test_names_are_unique(self) -> None:
        """No two rows answer to one name."""
        names = [command.name for command in every_command()]
        assert sorted(names) == sorted(set(names))


class TestWords:
    def test_unknown_command_names_the_near_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A slip of the finger gets the word that was meant, and exit status 2."""
        assert cli.main(["plann"]) == 2
        assert "Did you mean 'plan'?" in capsys.readouterr().err

    @pytest.mark.parametrize("command", every_command(), ids=lambda c: c.name)
    def test_every_row_loads(self, command: cli.Command) -> None:
        """Each row of the table leads to something that can be called, under its own name where it is flat."""
        target = cli.load(command.target)
        assert callable(target)
        if not command.group and hasattr(target, "registered_commands"):
            flat = {c.name or c.callback.__name__.replace("_", "-") for c in target.registered_commands if c.callback}
            groups = {g.name for g in target.registered_groups}
            assert command.name in flat | groups
