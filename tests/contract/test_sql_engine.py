"""The database adapter on both engines: migrations, transactions, times, and failures in our own words."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from opsapi.adapters.sql import tables
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.migrating import SchemaIsNewer
from opsapi.adapters.sql.types import UtcDateTime
from opsapi.adapters.sql.urls import normal_url
from opsapi.kit.errors import DependencyUnavailable

NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)


def _lease(name: str, moment: datetime = NOON) -> dict[str, Any]:
    return {"name": name, "holder": "me", "token": 1, "expires_at": moment}


async def _schema_differences(database: Database) -> list[Any]:
    def compare(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, tables.metadata))

    async with database.read() as connection:
        return await connection.run_sync(compare)


async def test_migrations_from_nothing_make_exactly_the_declared_tables(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    missing = await _schema_differences(database)
    await database.migrate()
    assert len(missing) >= len(tables.metadata.tables)
    assert await _schema_differences(database) == []
    await database.close()


async def test_two_replicas_that_migrate_at_once_both_end_well(empty_database_url: str) -> None:
    replicas = [Database(empty_database_url) for _ in range(4)]
    await asyncio.gather(*(replica.migrate() for replica in replicas))
    for replica in replicas:
        assert await _schema_differences(replica) == []
        await replica.close()


async def test_migrating_again_changes_nothing(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(sa.insert(tables.leases), _lease("kept"))
    await database.migrate()
    async with database.read() as connection:
        assert (await connection.execute(sa.select(tables.leases.c.name))).scalars().all() == ["kept"]


async def test_a_schema_of_a_later_release_is_refused(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaIsNewer):
        await database.migrate()


async def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(sa.insert(tables.leases), _lease("gone"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with database.read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(tables.leases))).scalar_one() == 0


async def test_a_cancelled_write_leaves_nothing_and_the_next_one_works(database: Database) -> None:
    inside = asyncio.Event()

    async def hang() -> None:
        async with database.write() as connection:
            await connection.execute(sa.insert(tables.leases), _lease("gone"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with database.write() as connection:
        await connection.execute(sa.insert(tables.leases), _lease("kept"))
        assert (await connection.execute(sa.select(tables.leases.c.name))).scalars().all() == ["kept"]


async def test_a_violated_constraint_reaches_the_store_as_such(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        async with database.write() as connection:
            await connection.execute(sa.insert(tables.leases), [_lease("twice"), _lease("twice")])


async def test_foreign_keys_hold_on_both_engines(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        async with database.write() as connection:
            await connection.execute(
                sa.insert(tables.operation_locks), {"resource_id": "r", "operation_id": "none", "taken_at": NOON}
            )


async def test_fifty_concurrent_writers_of_two_replicas_lose_nothing(database_url: str) -> None:
    replicas = [Database(database_url, pool_size=4) for _ in range(2)]

    async def add(replica: Database, number: int) -> None:
        async with replica.write() as connection:
            await connection.execute(sa.insert(tables.leases), _lease(f"n{number}"))

    await asyncio.gather(*(add(replicas[n % 2], n) for n in range(50)))
    async with replicas[0].read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(tables.leases))).scalar_one() == 50
    for replica in replicas:
        await replica.close()


async def test_moments_keep_their_microseconds_and_sort_as_time_does(database: Database) -> None:
    elsewhere = timezone(timedelta(hours=9))
    moments = [
        NOON,
        (NOON + timedelta(microseconds=1)).astimezone(elsewhere),
        NOON - timedelta(days=1),
        NOON.replace(microsecond=0),
    ]
    async with database.write() as connection:
        rows = [_lease(str(i), moment) for i, moment in enumerate(moments)]
        await connection.execute(sa.insert(tables.leases), rows)
    async with database.read() as connection:
        column = tables.leases.c.expires_at
        read = (await connection.execute(sa.select(column).order_by(column))).scalars().all()
        later = (await connection.execute(sa.select(sa.func.count()).where(column > NOON))).scalar_one()
    assert read == sorted(moments)
    assert all(moment.utcoffset() == timedelta(0) for moment in read)
    assert later == 1


async def test_a_moment_without_offset_is_refused(database: Database) -> None:
    with pytest.raises(sa.exc.StatementError, match="without UTC offset"):
        async with database.write() as connection:
            await connection.execute(sa.insert(tables.leases), _lease("naive", datetime(2026, 1, 1)))  # noqa: DTZ001


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_sqlite_text_sorts_as_the_moments_do(one: datetime, other: datetime) -> None:
    column, dialect = UtcDateTime(), sqlite.dialect()
    texts = [column.process_bind_param(moment, dialect) for moment in (one, other)]
    assert (texts[0] < texts[1]) == (one < other)
    assert [column.process_result_value(text, dialect) for text in texts] == [one, other]


async def test_a_probe_tells_version_pool_and_measured_query_times(database: Database) -> None:
    first = await database.probe()
    async with database.read() as connection:
        await connection.execute(sa.select(tables.leases))
        during = await database.probe()
    assert first.version[0].isdigit()
    assert during.connections.active == 1
    assert during.connections.max == 10
    assert during.avg_query_ms is not None
    assert during.avg_query_ms > 0
    assert during.slow_queries == 0


async def test_a_pool_with_no_connection_left_is_named_unavailable(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsapi.adapters.sql.engine._POOL_TIMEOUT_SECONDS", 0.01)
    database = Database(database_url, pool_size=1)
    async with database.read():
        with pytest.raises(DependencyUnavailable, match="every connection is in use") as caught:
            async with database.read():
                pass
    assert caught.value.retry_after == 1
    await database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_database_that_is_away_is_told_without_vendor_text(kind: str, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "such"
    url = f"sqlite:///{missing}/x.db" if kind == "sqlite" else f"postgresql://secret@/x?host={missing}"
    database = Database(url)
    with pytest.raises(DependencyUnavailable) as caught:
        await database.probe()
    assert caught.value.message == "database is unavailable: it cannot be reached"
    assert caught.value.__cause__ is not None
    with pytest.raises(DependencyUnavailable):
        await database.migrate()
    await database.close()


@pytest.mark.postgres
async def test_a_connection_that_the_server_ended_is_told_and_the_next_one_works(postgres: Any) -> None:
    name = await postgres.create(migrated=True)
    database = Database(postgres.url(name))
    kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"

    async def lose_the_connection() -> None:
        async with database.read() as connection:
            await connection.execute(sa.select(tables.leases))
            await postgres.execute(kill)
            await connection.execute(sa.select(tables.leases))

    with pytest.raises(DependencyUnavailable):
        await lose_the_connection()
    assert (await database.probe()).engine == "postgresql"
    await database.close()
    await postgres.drop(name)


async def test_a_new_sqlite_file_and_its_side_files_are_their_owners_alone(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    await database.migrate()
    async with database.write() as connection:
        await connection.execute(sa.insert(tables.leases), _lease("x"))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["new.db", "new.db-shm", "new.db-wal"]
    assert [file.stat().st_mode & 0o077 for file in files] == [0, 0, 0]
    await database.close()


async def test_sqlite_keeps_a_commit_through_a_power_cut_and_readers_beside_a_writer(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    await database.migrate()
    async with database.read() as connection:
        settings = [
            (await connection.execute(sa.text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]
    async with database.write() as writer:
        await writer.execute(sa.insert(tables.leases), _lease("unseen"))
        async with database.read() as reader:
            assert (await reader.execute(sa.select(tables.leases))).all() == []
    await database.close()


@pytest.mark.parametrize(
    "url",
    ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "sqlite:///x?mode=ro", "nonsense"],
)
def test_a_url_of_no_supported_engine_is_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite|SQLite"):
        normal_url(url)
