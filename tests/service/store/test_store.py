"""The run store on SQLite and on PostgreSQL: the same operations, the same promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from service.errors import StartupError
from service.store import Store, StoreDown
from service.store import database as databases
from service.store.runs import LeaseLost, NewRun, SessionBusy
from service.store.tables import metadata
from tests.fakes import postgres

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]


@pytest.fixture(scope="module")
def postgres_url() -> Generator[str]:
    with postgres.running() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('store')}/runs.db"


@pytest.fixture(scope="module")
async def store(url: str) -> AsyncGenerator[Store]:
    opened = await Store.open(url)
    yield opened
    await opened.aclose()


def new_run(name: str, owner: str = "one", **fields: Any) -> NewRun:
    values: dict[str, Any] = {
        "id": f"run_{name}",
        "key_id": "k",
        "session_id": f"sess_{name}",
        "new_session": True,
        "agent": "default",
        "model": "m",
        "request": {"text": "nul \x00, half \ud800, smile \U0001f600"},
        "variant": {"name": "stable"},
        "owner": owner,
        "lease_until": time.time() + 60,
        "created_at": time.time(),
        "created": {},
    }
    return NewRun(**(values | fields))


async def test_migrations_make_exactly_the_tables_of_the_code(store: Store) -> None:
    """What the migrations build has every table, column, key and index that the code knows."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        return compare_metadata(context, metadata)

    async with store.database.read() as connection:
        assert await connection.run_sync(differences) == []
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        assert {"runs", "events", "alembic_version"} <= set(names)


async def test_head_is_the_newest_migration(store: Store) -> None:
    """The revision that lets a start skip alembic is that of the newest file."""
    folder = Path(databases.__file__).parent / "migrations" / "versions"
    assert max(path.name.split("_")[0] for path in folder.glob("[0-9]*.py")) == databases.HEAD
    async with store.database.read() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar() == databases.HEAD


async def test_several_processes_may_start_at_once(url: str) -> None:
    """Opening (and migrating) from several places at a time works."""
    opened = await asyncio.gather(*(Store.open(url) for _ in range(4)))
    for each in opened:
        await each.aclose()


async def test_numbers_have_no_gaps_under_concurrency(store: Store) -> None:
    """A hundred appends at once get the numbers 2 to 101, each once, in the order stored."""
    await store.runs.create(new_run("numbers"))
    await asyncio.gather(*(store.runs.append("run_numbers", "one", [("e", {"i": i})]) for i in range(100)))
    events = await store.runs.events("run_numbers")
    assert [event.seq for event in events] == list(range(1, 102))
    assert sorted(event.data["i"] for event in events[1:]) == list(range(100))


async def test_text_of_any_kind_comes_back(store: Store) -> None:
    """NUL, half surrogates and emoji survive, though PostgreSQL's own text type would refuse the first two."""
    await store.runs.create(new_run("text"))
    row = await store.runs.get("run_text")
    assert row is not None
    assert row.request == new_run("text").request


async def test_only_the_owner_writes(store: Store) -> None:
    """Appending and finishing need the lease; the loser writes nothing."""
    await store.runs.create(new_run("owner", lease_until=0.0))
    assert await store.runs.claim("run_owner", "two", time.time() + 60) is not None
    assert await store.runs.claim("run_owner", "three", time.time() + 60) is None
    with pytest.raises(LeaseLost):
        await store.runs.append("run_owner", "one", [("e", {})])
    assert len(await store.runs.events("run_owner")) == 1
    assert len(await store.runs.append("run_owner", "two", [("e", {})])) == 1


async def test_one_claim_wins(store: Store) -> None:
    """Of twenty claims at once exactly one gets an orphan."""
    await store.runs.create(new_run("claims", lease_until=0.0))
    assert "run_claims" in await store.runs.orphans()
    won = await asyncio.gather(*(store.runs.claim("run_claims", f"p{i}", time.time() + 60) for i in range(20)))
    assert sum(row is not None for row in won) == 1


async def test_a_run_ends_once(store: Store) -> None:
    """Finishing twice is refused, and the end frees the session."""
    await store.runs.create(new_run("end"))
    row = await store.runs.get("run_end")
    assert row is not None
    again = new_run("end2", session_id="sess_end", new_session=False)
    with pytest.raises(SessionBusy):
        await store.runs.create(again)
    feature: dict[str, Any] = dict.fromkeys(
        ("prompt_tokens", "completion_tokens", "turns", "tool_calls", "tool_errors", "refusal", "user_retry"), 0
    ) | dict.fromkeys(("agent", "model", "model_digest", "variant", "outcome", "finish_reason", "script"), "")
    feature |= {"seconds": 0.0, "tools": []}
    await store.runs.finish(row, "one", "completed", {}, [("run.ended", {})], feature)
    with pytest.raises(LeaseLost):
        await store.runs.finish(row, "one", "cancelled", {}, [("run.ended", {})], feature)
    ended = await store.runs.get("run_end")
    assert ended is not None
    assert (ended.outcome, ended.ended) == ("completed", True)
    assert await store.runs.create(again) is None


async def test_duplicates_of_two_writers(store: Store, url: str) -> None:
    """The same idempotency key from two processes at once makes one run."""
    other = await Store.open(url)
    both = [
        (store, new_run("dup1", idempotency_key="same", fingerprint="f")),
        (other, new_run("dup2", idempotency_key="same", fingerprint="f")),
    ]
    results = await asyncio.gather(*(each.runs.create(run) for each, run in both))
    await other.aclose()
    winners = [run.id for (_, run), result in zip(both, results, strict=True) if result is None]
    losers = [result.run_id for result in results if result is not None]
    assert losers == winners
    assert [await store.runs.get(f"run_dup{i}") is not None for i in (1, 2)].count(True) == 1


async def test_one_bad_operation_does_not_fail_its_group(store: Store) -> None:
    """Writes are committed in groups; one that fails fails alone."""

    async def bad(connection: Any) -> None:
        await connection.execute(text("SELECT nothing FROM nowhere"))

    results = await asyncio.gather(
        store.runs.create(new_run("good1")),
        store.database.write(bad),
        store.runs.create(new_run("good2")),
        return_exceptions=True,
    )
    assert results[0] is None
    assert isinstance(results[1], StoreDown)
    assert results[2] is None
    assert await store.runs.get("run_good1") is not None


async def test_an_unusable_place_is_one_line(tmp_path: Path) -> None:
    """A folder that is a file, a kind of store that is none: StartupError names the value and the variable."""
    (tmp_path / "file").write_text("")
    for address in (f"sqlite+aiosqlite:///{tmp_path}/file/runs.db", "mysql://x/y", "not an address"):
        with pytest.raises(StartupError, match="AGENT_LOOP_"):
            await Store.open(address)


async def test_a_password_is_not_told(tmp_path: Path) -> None:
    """The address in an error has no password."""
    with pytest.raises(StartupError) as caught:
        await Store.open("postgresql+asyncpg://me:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)
