"""The virtual environment is made from nothing, compiled, made once, and not called made when it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ci import bootstrap

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose one set of requirements is uv's own."""
    (tmp_path / "requirements").mkdir()
    for name in ("uv", "small"):
        shutil.copy(ROOT / "requirements" / "uv.txt", tmp_path / "requirements" / f"{name}.txt")
    for package in bootstrap.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "small"\nversion = "1"\n[tool.setuptools]\npackages = ["ci"]\n'
    )
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return tmp_path


def refuse(*command: object) -> None:
    raise AssertionError(f"nothing had changed, and {command} was run")


def test_made_once_with_bytecode(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands import is compiled even where Python may not keep bytecode; a second time nothing runs."""
    assert bootstrap.main(["small"]) == 0
    (installed,) = project.glob(".venv/lib/python*/site-packages/uv")
    assert list(installed.glob("__pycache__/__init__.*.pyc"))
    assert [p for p in bootstrap.PACKAGES if not list((project / p).glob("__pycache__/__init__.*.pyc"))] == []
    monkeypatch.setattr(bootstrap, "run", refuse)
    assert bootstrap.main(["small"]) == 0


def test_a_failed_installation_is_made_again(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A package that is not the locked one ends with 1 and the command; nothing says that the set is there."""
    locked = project / "requirements" / "small.txt"
    locked.write_text("uv==0.0.1 --hash=sha256:" + "0" * 64 + "\n")
    assert bootstrap.main(["small"]) == 1
    assert "requirements/small.txt' ended with" in capfd.readouterr().err
    assert not (project / ".venv" / ".small-installed").exists()


@pytest.mark.parametrize("words", [[], ["smal"], ["small", "uv"]])
def test_wrong_words_name_the_sets(project: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert bootstrap.main(words) == 2
    said = capsys.readouterr().err
    assert "expected one of small, uv" in said
    assert (" ".join(words) or "nothing") in said
