"""Secrets are made once, are hard to guess, and are hidden by their folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ci.stack import secrets
from ci.stack.errors import UsageError


def mode(path: Path) -> int:
    """Permission bits of a path."""
    return stat.S_IMODE(path.stat().st_mode)


def test_made_once_and_never_again(tmp_path: Path) -> None:
    """A second run makes nothing and changes nothing."""
    assert secrets.ensure(tmp_path) == list(secrets.SECRETS)
    before = {name: secrets.show(tmp_path, name) for name in secrets.SECRETS}
    assert secrets.ensure(tmp_path) == []
    assert {name: secrets.show(tmp_path, name) for name in secrets.SECRETS} == before


def test_files_are_readable_inside_a_private_folder(tmp_path: Path) -> None:
    """0444 for containers that are not root, 0700 around them for everybody else on the host."""
    secrets.ensure(tmp_path)
    assert mode(tmp_path / "secrets") == 0o700
    assert {mode(path) for path in (tmp_path / "secrets").iterdir()} == {0o444}


def test_a_private_umask_hides_them_from_no_container(tmp_path: Path) -> None:
    """Where new files are the person's alone (umask 077), the containers' users read theirs all the same."""
    before = os.umask(0o077)
    try:
        secrets.ensure(tmp_path)
    finally:
        os.umask(before)
    assert {mode(path) for path in (tmp_path / "secrets").iterdir()} == {0o444}


def test_every_secret_is_its_own(tmp_path: Path) -> None:
    """No two are equal, none is short, and another stack gets others."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    made: list[str] = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        secrets.ensure(folder)
        made += [secrets.show(folder, s.name) for s in secrets.SECRETS.values() if s.make]
    assert len(set(made)) == len(made)
    assert min(map(len, made)) >= 32


def test_an_empty_file_is_made_again(tmp_path: Path) -> None:
    """A run that was killed between creating and writing leaves nothing that counts as a secret."""
    secrets.ensure(tmp_path)
    path = tmp_path / "secrets" / "grafana"
    path.chmod(0o644)
    path.write_text("")
    assert secrets.ensure(tmp_path) == ["grafana"]
    assert secrets.show(tmp_path, "grafana")


def test_unknown_and_unmade_names_are_told_apart(tmp_path: Path) -> None:
    """Each mistake says what to do."""
    with pytest.raises(UsageError, match="No secret 'root'"):
        secrets.show(tmp_path, "root")
    with pytest.raises(UsageError, match="'agent-loop up' makes it"):
        secrets.show(tmp_path, "grafana")


@pytest.mark.parametrize(("name", "variable"), [("hub_token", "HF_TOKEN"), ("database_url", "AGENT_LOOP_DATABASE_URL")])
def test_what_only_its_owner_can_make(
    name: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one the file is there and empty, so that containers start; the variable fills it later."""
    monkeypatch.delenv(variable, raising=False)
    secrets.ensure(tmp_path)
    assert secrets.show(tmp_path, name) == ""
    monkeypatch.setenv(variable, "mine")
    assert secrets.ensure(tmp_path) == [name]
    assert secrets.show(tmp_path, name) == "mine"


def test_a_corrected_one_takes_the_place_of_the_wrong_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address with a wrong password is mended by giving it again; what is not given again stays."""
    monkeypatch.setenv("AGENT_LOOP_DATABASE_URL", "postgresql+asyncpg://agent:wrong@db/runs")
    secrets.ensure(tmp_path)
    monkeypatch.setenv("AGENT_LOOP_DATABASE_URL", "postgresql+asyncpg://agent:right@db/runs")
    assert secrets.ensure(tmp_path) == ["database_url"]
    monkeypatch.delenv("AGENT_LOOP_DATABASE_URL")
    assert secrets.ensure(tmp_path) == []
    assert secrets.show(tmp_path, "database_url") == "postgresql+asyncpg://agent:right@db/runs"
    assert mode(tmp_path / "secrets" / "database_url") == 0o444
