"""Databases in use are copied whole."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from observability.backup.errors import BackupError
from observability.backup.repository import Repository
from observability.backup.restore import restore
from tests.observability.backup.trees import NOW

pytestmark = pytest.mark.in_image


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
