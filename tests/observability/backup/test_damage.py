"""What is damaged is noticed, refused, and healed by the next backup."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from observability.backup.errors import Damaged, NoSuchSnapshot, RepositoryBusy, SourceMissing
from observability.backup.repository import Repository
from observability.backup.restore import restore
from observability.backup.sources import Places, source
from tests.observability.backup.trees import NOW, flip, tree

pytestmark = pytest.mark.in_image


class TestDamage:
    """What can go wrong afterwards."""

    def test_a_flipped_bit_is_found_named_and_healed(self, repository: Repository, checkpoints: Path) -> None:
        """Verify names the file; the content is set aside; the next backup writes it again."""
        snapshot = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        damaged = flip(repository)
        problems = repository.verify(snapshot)
        assert len(problems) >= 1
        assert all("Content damaged" in problem or "Content missing" in problem for problem in problems)
        assert damaged.with_name(f"{damaged.name}.damaged").exists()
        again = repository.create("checkpoints", {"r": checkpoints}, now=NOW + timedelta(hours=1))
        assert repository.verify(again) == []
        assert repository.verify(snapshot) == []

    def test_a_damaged_backup_is_not_restored(self, repository: Repository, checkpoints: Path) -> None:
        """Restore refuses before anything is changed."""
        snapshot = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        flip(repository)
        before = tree(checkpoints)
        with pytest.raises(Damaged, match="Use another backup"):
            restore(repository, snapshot, {"r": checkpoints}, now=NOW)
        assert tree(checkpoints) == before
        assert not list(checkpoints.glob(".restoring-*"))

    @pytest.mark.parametrize("cut", [0, 10, -5])
    def test_a_manifest_cut_short_is_no_backup(self, repository: Repository, checkpoints: Path, cut: int) -> None:
        """It is named as unusable and not offered; pruning then sweeps nothing away."""
        snapshot = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        path = repository.folder / "snapshots" / f"{snapshot.id}.json"
        path.write_text(path.read_text()[:cut])
        assert repository.snapshots() == []
        assert len(repository.unreadable()) == 1
        with pytest.raises(Damaged):
            repository.find(snapshot.id)
        objects = sorted((repository.folder / "objects").glob("??/*"))
        repository.prune("checkpoints")
        assert sorted((repository.folder / "objects").glob("??/*")) == objects

    @pytest.mark.parametrize("path", ["r/../../evil", "r/a/../../evil", "r"])
    def test_a_manifest_cannot_write_elsewhere(
        self, repository: Repository, checkpoints: Path, tmp_path: Path, path: str
    ) -> None:
        """A path that leaves the folder is refused, though its checksum fits."""
        snapshot = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        first = next(entry for entry in snapshot.entries if not entry.link)
        evil = replace(snapshot, entries=(replace(first, path=path),))
        with pytest.raises(Damaged, match="leads out"):
            restore(repository, evil, {"r": tmp_path / "deep" / "new"}, now=NOW)
        assert not (tmp_path / "evil").exists()

    def test_a_link_out_of_the_folder_is_refused(
        self, repository: Repository, checkpoints: Path, tmp_path: Path
    ) -> None:
        """A link to elsewhere on the machine is not made."""
        (checkpoints / "a" / "etc").symlink_to("/etc")
        snapshot = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        with pytest.raises(Damaged, match="Link leads out"):
            restore(repository, snapshot, {"r": tmp_path / "new"}, now=NOW)

    def test_a_backup_that_is_killed_leaves_no_snapshot(self, checkpoints: Path, tmp_path: Path) -> None:
        """Killed while it writes: what is listed afterwards is whole, and the next one works and sweeps up."""
        with (checkpoints / "a" / "large").open("wb") as file:
            file.truncate(3 << 30)  # sparse: reading and hashing it takes long enough to be killed in
        backups = tmp_path / "backups"
        command = [sys.executable, "-m", "observability", "backup", "create", "--what", "checkpoints"]
        command += ["--checkpoints", str(checkpoints), "--backups", str(backups)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
        while not list(backups.glob(".part-*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        repository = Repository(backups)
        assert repository.snapshots() == []
        (checkpoints / "a" / "large").unlink()
        snapshot = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        repository.prune("checkpoints")
        assert repository.verify(snapshot) == []
        assert not list(backups.glob(".part-*"))

    def test_two_at_once_do_not_mix(self, repository: Repository, checkpoints: Path) -> None:
        """The second says that another is at work."""
        with repository._held(), pytest.raises(RepositoryBusy, match="Wait for it"):
            repository.create("checkpoints", {"r": checkpoints}, now=NOW)

    def test_missing_source_and_unknown_names_are_said(self, repository: Repository, tmp_path: Path) -> None:
        """Each gives one line with the value."""
        with pytest.raises(SourceMissing, match="nowhere"):
            repository.create("checkpoints", {"r": tmp_path / "nowhere"}, now=NOW)
        for name in ("latest", "20260101T000000Z-service", "../etc/passwd"):
            with pytest.raises(NoSuchSnapshot):
                repository.find(name)
        with pytest.raises(SourceMissing, match="--data"):
            source("service", Places())

    def test_a_pipe_in_the_folder_is_left_out(self, repository: Repository, checkpoints: Path) -> None:
        """Reading it would wait for ever."""
        os.mkfifo(checkpoints / "a" / "pipe")
        snapshot = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        assert not any(entry.path.endswith("pipe") for entry in snapshot.entries)
