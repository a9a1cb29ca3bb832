"""Backups: what is made can be restored, byte for byte; what is damaged is noticed; nothing is lost on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from observability.backup import capture, retention
from observability.backup.errors import BackupError, Damaged, NoSuchSnapshot, RepositoryBusy, SourceMissing
from observability.backup.repository import Repository
from observability.backup.restore import restore
from observability.backup.schedule import Schedule
from observability.backup.sources import Places, source
from observability.cli import app
from tests.fakes.pages import Pages
from tests.fakes.programs import free_port

pytestmark = pytest.mark.in_image

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Two run folders as the trainer leaves them, with one checkpoint in the making."""
    root = tmp_path / "checkpoints"
    for run, step in (("a", 10), ("a", 20), ("b", 5)):
        folder = root / run / "checkpoints" / f"step-{step:07}"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(f"{run}{step}".encode() * 5000)
        (folder / "manifest.json").write_text("{}")
    (root / "a" / "checkpoints" / "latest").symlink_to("step-0000020")
    (root / "a" / "checkpoints" / ".unfinished-step-0000030-1").mkdir()
    (root / "a" / "checkpoints" / ".unfinished-step-0000030-1" / "half").write_text("half")
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty one."""
    return Repository(tmp_path / "backups")


def tree(root: Path) -> dict[str, bytes | str]:
    """Every file's content and every link's target below a folder, without what begins with a dot."""
    found: dict[str, bytes | str] = {}
    for path in capture.walk(root):
        name = path.relative_to(root).as_posix()
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes()
    return found


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


class TestSqlite:
    """Databases that are in use."""

    def test_a_database_in_use_is_copied_whole(self, repository: Repository, tmp_path: Path) -> None:
        """While a writer moves money between two rows, every restored copy is sound and holds the same sum."""
        data = tmp_path / "data"
        data.mkdir()
        over = threading.Event()
        with closing(sqlite3.connect(data / "runs.db")) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER)")
            db.executemany("INSERT INTO account VALUES (?, 1000)", [(i,) for i in range(200)])
            db.commit()

        def transfer() -> None:
            with closing(sqlite3.connect(data / "runs.db", timeout=30)) as mine:
                number = 0
                while not over.is_set():
                    number += 1
                    mine.execute("UPDATE account SET money = money - 1 WHERE id = ?", (number % 200,))
                    mine.execute("UPDATE account SET money = money + 1 WHERE id = ?", ((number * 7) % 200,))
                    mine.commit()

        writer = threading.Thread(target=transfer)
        writer.start()
        try:
            for turn in range(5):
                snapshot = repository.create("service", {"data": data}, now=NOW + timedelta(hours=turn))
                assert [entry.path for entry in snapshot.entries] == ["data/runs.db"]
                restore(repository, snapshot, {"data": tmp_path / f"back{turn}"}, now=NOW)
                with closing(sqlite3.connect(tmp_path / f"back{turn}" / "runs.db")) as back:
                    assert back.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                    assert back.execute("SELECT SUM(money) FROM account").fetchone() == (200_000,)
        finally:
            over.set()
            writer.join()

    def test_what_only_the_journal_holds_is_taken(self, repository: Repository, tmp_path: Path) -> None:
        """Rows that are still in the write-ahead log are in the backup; after a restore no old log is replayed."""
        data = tmp_path / "data"
        data.mkdir()
        with closing(sqlite3.connect(data / "runs.db")) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA wal_autocheckpoint=0")
            db.execute("CREATE TABLE t (x)")
            db.execute("INSERT INTO t VALUES (1)")
            db.commit()
            snapshot = repository.create("service", {"data": data}, now=NOW)
            db.execute("INSERT INTO t VALUES (2)")
            db.commit()
            assert (data / "runs.db-wal").stat().st_size > 0
            restore(repository, snapshot, {"data": data}, now=NOW)
        with closing(sqlite3.connect(data / "runs.db")) as db:
            assert db.execute("SELECT x FROM t").fetchall() == [(1,)]
        assert (data / ".before-restore-20261125T120000Z" / "runs.db-wal").exists()

    def test_a_broken_database_is_said(self, repository: Repository, tmp_path: Path) -> None:
        """A database that SQLite cannot read fails the backup with its path."""
        data = tmp_path / "data"
        data.mkdir()
        with closing(sqlite3.connect(data / "runs.db")) as db:
            db.execute("CREATE TABLE t (x)")
            db.executemany("INSERT INTO t VALUES (?)", [("y" * 500,) for _ in range(200)])
            db.commit()
        content = bytearray((data / "runs.db").read_bytes())
        content[4096:20000] = b"\xff" * (20000 - 4096)
        (data / "runs.db").write_bytes(content)
        with pytest.raises(BackupError, match=r"runs\.db"):
            repository.create("service", {"data": data}, now=NOW)
        assert repository.snapshots() == []


class TestDamage:
    """What can go wrong afterwards."""

    def flip(self, repository: Repository) -> Path:
        """Damage one content by one bit, as a disk does."""
        path = sorted((repository.folder / "objects").glob("??/*"))[0]
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)
        return path

    def test_a_flipped_bit_is_found_named_and_healed(self, repository: Repository, checkpoints: Path) -> None:
        """Verify names the file; the content is set aside; the next backup writes it again."""
        snapshot = repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        damaged = self.flip(repository)
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
        self.flip(repository)
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
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
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


class TestRetention:
    """24 hourly and 7 daily."""

    def test_hourly_for_a_month(self) -> None:
        """After a month of hourly backups 24 hours and 7 days are left, the newest of each."""
        times = [NOW - timedelta(hours=hour) for hour in range(24 * 30)]
        kept = retention.kept(times)
        assert {NOW - timedelta(hours=hour) for hour in range(24)} <= kept
        assert {NOW.replace(hour=23) - timedelta(days=day) for day in range(1, 7)} <= kept
        assert len(kept) == 24 + 5  # yesterday's newest is one of the 24

    def test_a_long_pause_loses_nothing(self) -> None:
        """A machine that was off for a year keeps what it had."""
        times = [NOW - timedelta(days=365, hours=hour) for hour in range(10)]
        assert retention.kept(times) == set(times)

    @given(
        minutes=st.lists(st.integers(0, 60 * 24 * 40), max_size=80, unique=True),
        hourly=st.integers(0, 30),
        daily=st.integers(0, 10),
        newest=st.integers(0, 5),
    )
    @settings(deadline=None)
    def test_invariants(self, minutes: list[int], hourly: int, daily: int, newest: int) -> None:
        """The newest always stay, never more than asked for, and pruning twice drops nothing more."""
        times = {NOW - timedelta(minutes=minute) for minute in minutes}
        kept = retention.kept(times, hourly=hourly, daily=daily, newest=newest)
        assert kept <= times
        assert len(kept) <= max(1, newest) + hourly + daily
        assert set(sorted(times, reverse=True)[: max(1, newest)]) <= kept
        assert retention.kept(kept, hourly=hourly, daily=daily, newest=newest) == kept

    def test_one_made_by_hand_outlives_the_next_hourly_one(self) -> None:
        """A backup before an upgrade stays, though the loop makes another within the same hour."""
        by_hand, hourly = NOW + timedelta(minutes=5), NOW + timedelta(minutes=6)
        assert by_hand in retention.kept([by_hand, hourly])

    def test_prune_drops_snapshots_and_their_contents(self, repository: Repository, checkpoints: Path) -> None:
        """Contents that only dropped snapshots named are gone, all others stay whole."""
        for hour in range(4):
            (checkpoints / "a" / "state").write_text(f"state {hour}")
            repository.create("checkpoints", {"r": checkpoints}, now=NOW + timedelta(hours=hour))
        before = len(list((repository.folder / "objects").glob("??/*")))
        gone = repository.prune("checkpoints", hourly=2, daily=0, newest=1)
        assert len(gone) == 2
        assert len(list((repository.folder / "objects").glob("??/*"))) == before - 2
        assert [repository.verify(snapshot) for snapshot in repository.snapshots()] == [[], []]


class TestSchedule:
    """The hourly loop and its metrics."""

    def test_success_and_failure_are_counted(self, repository: Repository, checkpoints: Path, tmp_path: Path) -> None:
        """A success moves the time and the sizes; a failure counts and leaves the time of the last success."""
        registry = CollectorRegistry()
        schedule = Schedule(repository, ["checkpoints"], Places(checkpoints=checkpoints), registry)

        def value(name: str) -> float | None:
            return registry.get_sample_value(name, {"what": "checkpoints"})

        assert value("backup_last_success_timestamp_seconds") == 0
        assert schedule.turn(NOW)
        assert value("backup_last_success_timestamp_seconds") == NOW.timestamp()
        assert value("backup_snapshots") == 1
        assert value("backup_size_bytes") == sum(
            path.stat().st_size for path in capture.walk(checkpoints) if not path.is_symlink()
        )
        checkpoints.rename(tmp_path / "gone")
        assert not schedule.turn(NOW + timedelta(hours=1))
        assert value("backup_failures_total") == 1
        assert value("backup_last_success_timestamp_seconds") == NOW.timestamp()

    def test_a_restart_knows_the_last_success(self, repository: Repository, checkpoints: Path) -> None:
        """The alert on stale backups does not fire only because the container was replaced."""
        repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        registry = CollectorRegistry()
        Schedule(repository, ["checkpoints"], Places(), registry)
        name = "backup_last_success_timestamp_seconds"
        assert registry.get_sample_value(name, {"what": "checkpoints"}) == NOW.timestamp()

    def test_the_loop_is_a_program(self, checkpoints: Path, tmp_path: Path) -> None:
        """`backup loop` makes its first backup at once, serves metrics and health, and ends on SIGTERM."""
        port = free_port()
        command = [sys.executable, "-m", "observability", "backup", "loop", "--what", "checkpoints"]
        command += ["--checkpoints", str(checkpoints), "--backups", str(tmp_path / "b"), "--port", str(port)]
        process = subprocess.Popen([*command, "--host", "127.0.0.1"], cwd=Path(__file__).parents[2])
        try:
            deadline = time.monotonic() + 60
            text = ""
            while 'backup_snapshots{what="checkpoints"} 1.0' not in text:
                assert time.monotonic() < deadline, text
                assert process.poll() is None
                time.sleep(0.1)
                try:
                    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
                except httpx.TransportError:
                    continue
            health = [sys.executable, "-m", "observability.healthcheck", str(port)]
            assert subprocess.run(health, cwd=Path(__file__).parents[2]).returncode == 0
        finally:
            process.terminate()
        assert process.wait(20) == 0
        assert subprocess.run(health, cwd=Path(__file__).parents[2], capture_output=True).returncode == 1


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
        TestDamage().flip(Repository(tmp_path / "backups"))
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
