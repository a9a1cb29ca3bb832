"""What a person types."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from observability.backup.repository import Repository
from observability.cli import app
from tests.observability.backup.trees import flip, tree

pytestmark = pytest.mark.in_image


class TestCommandLine:
    """What a person types."""

    def call(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        result = CliRunner().invoke(app, ["backup", *words])
        return result.exit_code, result.stdout, result.stderr

    def test_the_whole_circle(self, checkpoints: Path, tmp_path: Path) -> None:
        """create, list, verify, lose everything, restore."""
        backups = ["--backups", str(tmp_path / "backups"), "--what", "checkpoints"]
        code, out, _ = self.call("create", *backups, "--checkpoints", str(checkpoints))
        assert code == 0
        name = out.split()[0]
        assert name in self.call("list", *backups)[1]
        assert self.call("verify", name, *backups) == (0, f"{name}  whole\n", "")
        before = tree(checkpoints)
        shutil.rmtree(checkpoints)
        code, out, _ = self.call("restore", "latest", "--yes", *backups)
        assert code == 0
        assert tree(checkpoints) == before
        assert str(checkpoints) in out

    def test_it_asks_before_it_restores(self, checkpoints: Path, tmp_path: Path) -> None:
        """Without --yes and without an answer nothing is changed."""
        backups = ["--backups", str(tmp_path / "backups"), "--what", "checkpoints"]
        self.call("create", *backups, "--checkpoints", str(checkpoints))
        (checkpoints / "a" / "mine").write_text("mine")
        code, _, err = self.call("restore", *backups)
        assert code == 1
        assert "Restore" in err
        assert (checkpoints / "a" / "mine").exists()

    def test_damage_has_its_own_exit_status(self, checkpoints: Path, tmp_path: Path) -> None:
        """verify ends with 3 and names the file."""
        backups = ["--backups", str(tmp_path / "backups"), "--what", "checkpoints"]
        self.call("create", *backups, "--checkpoints", str(checkpoints))
        flip(Repository(tmp_path / "backups"))
        code, out, err = self.call("verify", *backups)
        assert code == 3
        assert "damaged" in out
        assert "Content damaged" in err

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["create", "--what", "everything"], 2, "Use checkpoints, service or all"),
            (["restore", "nonsense", "--yes"], 2, "'backup list' shows"),
            (["create", "--what", "checkpoints", "--checkpoints", "/nowhere"], 2, "/nowhere"),
        ],
    )
    def test_wrong_words_give_one_line(self, words: list[str], code: int, message: str, tmp_path: Path) -> None:
        """Problem, value, what to do; no traceback."""
        status, _, err = self.call(*words, "--backups", str(tmp_path / "b"))
        assert status == code
        assert message in err
        assert len(err.strip().splitlines()) == 1
