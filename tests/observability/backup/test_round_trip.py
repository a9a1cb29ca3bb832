"""What is backed up comes back byte for byte, and what was there is kept aside."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from observability.backup.repository import Repository
from observability.backup.restore import restore
from observability.backup.sources import Places, source
from tests.fakes.pages import Pages
from tests.observability.backup.trees import NOW, tree

pytestmark = pytest.mark.in_image


class TestCreateAndRestore:
    """The round trip."""

    def test_a_restored_tree_is_the_one_backed_up(
        self, repository: Repository, checkpoints: Path, tmp_path: Path
    ) -> None:
        """Contents, links, modes and times come back; work in progress was not taken."""
        secret = checkpoints / "b" / "private"
        secret.write_text("x")
        secret.chmod(0o600)
        os.utime(secret, ns=(1, 1_700_000_000_123_456_789))
        snapshot = repository.create("checkpoints", {"checkpoints": checkpoints}, now=NOW)
        put = restore(repository, snapshot, {"checkpoints": tmp_path / "new"}, now=NOW)
        assert tree(tmp_path / "new") == tree(checkpoints)
        assert put == {"checkpoints": ["a", "b"]}
        back = (tmp_path / "new" / "b" / "private").stat()
        assert (back.st_mode & 0o777, back.st_mtime_ns) == (0o600, 1_700_000_000_123_456_789)
        assert not any("half" in name for name in tree(tmp_path / "new"))

    @given(
        files=st.dictionaries(
            st.lists(st.sampled_from(["a", "b", "ü", "x y", "-"]), min_size=1, max_size=3).map("/".join),
            st.binary(max_size=50),
            max_size=8,
        )
    )
    @example(files={"a": b"SQLite format 3\x00", "b": b"SQLite format 3\x00" + b"\xff" * 200})
    @settings(deadline=None, max_examples=40)
    def test_any_tree_comes_back(self, tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
        """Whatever names and contents a folder holds, the restored folder holds the same."""
        folder = tmp_path_factory.mktemp("any")
        root = folder / "root"
        root.mkdir()
        for name, content in files.items():
            path = root / name
            if any(parent.is_file() for parent in path.parents) or path.is_dir():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        repository = Repository(folder / "backups")
        snapshot = repository.create("checkpoints", {"r": root}, now=NOW)
        assert repository.verify(snapshot) == []
        restore(repository, snapshot, {"r": folder / "new"}, now=NOW)
        assert tree(folder / "new") == tree(root)

    def test_what_was_there_is_kept_aside(self, repository: Repository, checkpoints: Path) -> None:
        """Restoring in place replaces the runs of the backup, keeps their present state, and touches no other run."""
        snapshot = repository.create("checkpoints", {"checkpoints": checkpoints}, now=NOW)
        before = tree(checkpoints)
        shutil.rmtree(checkpoints / "b")
        (checkpoints / "a" / "note").write_text("written later")
        (checkpoints / "c").mkdir()
        (checkpoints / "c" / "new").write_text("a run of today")
        restore(repository, snapshot, {"checkpoints": checkpoints}, now=NOW)
        assert tree(checkpoints) == {**before, "c/new": b"a run of today"}
        aside = checkpoints / ".before-restore-20261125T120000Z"
        assert (aside / "a" / "note").read_text() == "written later"
        assert not list(checkpoints.glob(".restoring-*"))

    def test_unchanged_contents_are_kept_once(self, repository: Repository, checkpoints: Path) -> None:
        """A second backup of the same files adds a manifest and no content."""
        repository.create("checkpoints", {"checkpoints": checkpoints}, now=NOW)
        objects = sorted((repository.folder / "objects").glob("??/*"))
        repository.create("checkpoints", {"checkpoints": checkpoints}, now=NOW + timedelta(hours=1))
        assert sorted((repository.folder / "objects").glob("??/*")) == objects
        assert len(repository.snapshots("checkpoints")) == 2

    def test_a_changed_file_of_equal_size_is_seen(
        self, repository: Repository, checkpoints: Path, tmp_path: Path
    ) -> None:
        """A later backup holds the later content, the earlier one still the earlier."""
        file = checkpoints / "b" / "state"
        file.write_text("one")
        first = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        file.write_text("two")
        second = repository.create("checkpoints", {"r": checkpoints}, now=NOW + timedelta(hours=1))
        for snapshot, content in ((first, "one"), (second, "two")):
            restore(repository, snapshot, {"r": tmp_path / content}, now=NOW)
            assert (tmp_path / content / "b" / "state").read_text() == content


def test_the_service_backup_holds_store_grafana_and_models(repository: Repository, tmp_path: Path) -> None:
    """Run store and Grafana's database by online backup, the list of models from Ollama's API."""
    for folder, name in (("data", "runs.db"), ("grafana", "grafana.db")):
        (tmp_path / folder).mkdir()
        with closing(sqlite3.connect(tmp_path / folder / name)) as db:
            db.execute("CREATE TABLE t (x)")
            db.commit()
    with Pages({"/api/tags": json.dumps({"models": [{"name": "gemma3n:e4b", "digest": "15cb"}]})}) as ollama:
        places = Places(data=tmp_path / "data", grafana=tmp_path / "grafana", ollama=ollama.url)
        found = source("service", places)
        snapshot = repository.create("service", found.roots, extra=found.extra, now=NOW)
    assert [entry.path for entry in snapshot.entries] == ["data/runs.db", "grafana/grafana.db", "models/models.json"]
    without = source("service", Places(data=tmp_path / "data", ollama="http://127.0.0.1:9"))
    assert (list(without.roots), without.extra) == (["data"], {})
