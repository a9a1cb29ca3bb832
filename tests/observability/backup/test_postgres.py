"""A run store in PostgreSQL is backed up and put back, on a real server of the distribution's package."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from observability.backup import postgres
from observability.backup.errors import Damaged, DatabaseUnusable
from observability.backup.repository import Repository
from observability.backup.restore import restore_database
from observability.backup.sources import Places, source
from observability.cli import app
from tests.fakes.postgres import running
from tests.observability.backup.trees import NOW, flip

pytestmark = pytest.mark.in_image


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server's database `postgres`."""
    with running() as url:
        yield url


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """An empty database of the test's own."""
    name = f"t{abs(hash(request.node.name))}"
    sql(server, f"CREATE DATABASE {name}")
    return server.removesuffix("/postgres") + f"/{name}"


def sql(url: str, *statements: str) -> list[Any]:
    """The rows of the last statement."""

    async def ask() -> list[Any]:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return [await connection.fetch(statement) for statement in statements][-1]
        finally:
            await connection.close()

    return [tuple(row) for row in asyncio.run(ask())]


def filled(url: str) -> str:
    """The same database with two tables that belong together, and a sequence."""
    sql(
        url,
        "CREATE TABLE runs (id text PRIMARY KEY, input text NOT NULL)",
        "CREATE TABLE events (run text REFERENCES runs, seq serial, body jsonb)",
        "INSERT INTO runs SELECT 'run_' || n, repeat('x', n) FROM generate_series(1, 500) n",
        "INSERT INTO events (run, body) SELECT id, '{\"a\": 1}' FROM runs",
    )
    return url


COUNTS = "SELECT (SELECT sum(length(input)) FROM runs), (SELECT count(*) FROM events)"


def backed_up(repository: Repository, url: str, folder: Path) -> Any:
    """A snapshot of a service whose store is that database."""
    folder.mkdir(exist_ok=True)
    store = postgres.database(url)
    assert store is not None
    taken = source("service", Places(data=folder, database=store))
    return repository.create("service", taken.roots, extra=taken.extra, now=NOW)


class TestRoundTrip:
    """What was dumped is what is there after a restore."""

    def test_into_an_empty_database(self, url: str, server: str, repository: Repository, tmp_path: Path) -> None:
        """Rows, references and sequences come back; the snapshot verifies like any other."""
        snapshot = backed_up(repository, filled(url), tmp_path / "data")
        assert [entry.path for entry in snapshot.entries] == [postgres.ENTRY]
        assert repository.verify(snapshot) == []
        sql(server, "CREATE DATABASE fresh")
        fresh = server.removesuffix("/postgres") + "/fresh"
        target = postgres.database(fresh)
        assert target is not None
        assert restore_database(repository, snapshot, target, now=NOW) == ""
        assert sql(fresh, COUNTS) == sql(url, COUNTS) == [(125250, 500)]
        assert sql(fresh, "INSERT INTO events (run) VALUES ('run_1') RETURNING seq") == [(501,)]

    def test_what_is_in_the_way_is_kept(self, url: str, repository: Repository, tmp_path: Path) -> None:
        """In place: the old rows are back, those written since are in a schema of their own."""
        snapshot = backed_up(repository, filled(url), tmp_path / "data")
        sql(url, "INSERT INTO runs VALUES ('later', '')", "DELETE FROM events")
        target = postgres.database(url)
        assert target is not None
        aside = restore_database(repository, snapshot, target, now=NOW)
        assert aside == "before_restore_20261125t120000z"
        assert sql(url, COUNTS) == [(125250, 500)]
        assert sql(url, f"SELECT count(*) FROM {aside}.runs WHERE id = 'later'") == [(1,)]
        assert sql(url, f"SELECT count(*) FROM {aside}.events") == [(0,)]
        # What was kept aside is not carried along by the next backup.
        later = repository.content(backed_up(repository, url, tmp_path / "data").entries[0])
        assert "before_restore" not in target.program("pg_restore", "--list", str(later)).stdout


class TestDamage:
    """Nothing is half restored."""

    def test_a_damaged_dump_changes_nothing(self, url: str, repository: Repository, tmp_path: Path) -> None:
        """The checksum is asked before the database is touched."""
        snapshot = backed_up(repository, filled(url), tmp_path / "data")
        flip(repository)
        target = postgres.database(url)
        assert target is not None
        with pytest.raises(Damaged, match="Use another backup"):
            restore_database(repository, snapshot, target, now=NOW)
        assert sql(url, COUNTS) == [(125250, 500)]

    def test_a_restore_that_fails_half_way_is_undone(self, url: str, tmp_path: Path) -> None:
        """A dump cut short begins well; the old schema has its name again afterwards."""
        target = postgres.database(filled(url))
        assert target is not None
        postgres.dump(target, tmp_path / "whole")
        (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-500])
        with pytest.raises(DatabaseUnusable, match="pg_restore failed"):
            postgres.restore(target, tmp_path / "cut", now=NOW)
        assert sql(url, COUNTS) == [(125250, 500)]
        assert sql(url, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'before_restore%'") == [(0,)]

    def test_a_dump_that_cannot_be_read_is_no_backup(
        self, url: str, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """pg_dump that stops early with status 0, as on a disk that lies, is noticed when the dump is read again."""
        script = '#!/bin/sh\nfor w; do case $w in --file=*) printf PGDMP > "${w#*=}";; esac; done\n'
        (tmp_path / "pg_dump").write_text(script)
        (tmp_path / "pg_dump").chmod(0o755)
        real = postgres.found
        monkeypatch.setattr(postgres, "found", lambda n: tmp_path / n if n == "pg_dump" else real(n))
        with pytest.raises(DatabaseUnusable, match="pg_restore failed"):
            backed_up(repository, url, tmp_path / "data")
        assert repository.snapshots() == []


class TestAddress:
    """What the service takes as its store's address."""

    @pytest.mark.parametrize(
        ("url", "address", "password"),
        [
            ("postgresql+asyncpg://agent@db/runs", "postgresql://agent@db/runs", ""),
            (
                "postgresql://agent:p%40ss@db:5433/runs?ssl=require",
                "postgresql://agent@db:5433/runs?sslmode=require",
                "p@ss",
            ),
            (
                "postgres:///runs?host=/run/pg&prepared_statement_cache_size=0",
                "postgresql:///runs?host=%2Frun%2Fpg",
                "",
            ),
        ],
    )
    def test_is_brought_to_what_libpq_takes(self, url: str, address: str, password: str) -> None:
        """The password is apart, so that no message shows it; the driver's own parameters are left out."""
        assert postgres.database(url) == postgres.Database(address, password)

    @pytest.mark.parametrize("url", [None, "", "sqlite+aiosqlite:////data/runs.db"])
    def test_a_file_is_no_server(self, url: str | None) -> None:
        """SQLite's file is in the data folder, which is backed up as it is."""
        assert postgres.database(url) is None

    def test_a_password_is_in_no_message(self, url: str, tmp_path: Path) -> None:
        """A server that does not answer: one line with the address, without the secret."""
        store = postgres.database("postgresql://agent:hunter2@127.0.0.1:1/runs")
        assert store is not None
        with pytest.raises(DatabaseUnusable) as caught:
            postgres.dump(store, tmp_path / "dump")
        assert "127.0.0.1:1/runs" in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_missing_program_names_its_package(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Where the client is not installed."""
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DatabaseUnusable, match="Install postgresql-client"):
            postgres.found("pg_no_such_program")


class TestCommandLine:
    """The store's address from the option or from the file that the service reads."""

    def call(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        result = CliRunner().invoke(app, ["backup", *words])
        return result.exit_code, result.stdout, result.stderr

    def test_the_whole_circle(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """create, lose a table, restore; the dump can also be taken out as a file."""
        (tmp_path / "data").mkdir()
        (tmp_path / "url").write_text(filled(url) + "\n")
        monkeypatch.setenv("AGENT_LOOP_DATABASE_URL_FILE", str(tmp_path / "url"))
        where = ["--backups", str(tmp_path / "b"), "--what", "service"]
        code, out, err = self.call("create", *where, "--data", str(tmp_path / "data"))
        assert code == 0, err
        sql(url, "DROP TABLE events")
        code, out, err = self.call("restore", "latest", "--yes", *where)
        assert code == 0, err
        assert "before_restore_" in out
        assert sql(url, COUNTS) == [(125250, 500)]
        assert self.call("restore", "latest", "--yes", *where, "--to", str(tmp_path / "out"))[0] == 0
        listed = [postgres.found("pg_restore"), "--list", tmp_path / "out" / postgres.ENTRY]
        assert " TABLE public runs " in subprocess.run(listed, capture_output=True, text=True, check=True).stdout

    def test_a_dump_does_not_go_nowhere(self, url: str, repository: Repository, tmp_path: Path) -> None:
        """Restoring it without a database says which option names one."""
        backed_up(repository, filled(url), tmp_path / "data")
        code, _, err = self.call("restore", "latest", "--yes", "--what", "service", "--backups", str(repository.folder))
        assert code == 1
        assert "--database" in err


def test_the_tables_are_compared(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore that ends well but leaves a table out is an error, and is undone."""
    target = postgres.database(filled(url))
    assert target is not None
    postgres.dump(target, tmp_path / "dump")
    monkeypatch.setattr(
        postgres.Database,
        "program",
        lambda self, name, *words, _real=postgres.Database.program: _real(
            self, name, *([*words[:-1], "--table=runs", words[-1]] if "--single-transaction" in words else words)
        ),
    )
    with pytest.raises(DatabaseUnusable, match=r"Tables differ from the dump's \(events\)"):
        postgres.restore(target, tmp_path / "dump", now=NOW)
    assert sql(url, COUNTS) == [(125250, 500)]
