"""Sealed snapshots of what cleanups delete, on both engines."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.adapters.sql.cleanup import SqlSnapshots
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import cleanup_snapshots
from opsapi.playbooks.cleaning.ports import SnapshotUnreadable
from opsapi.workspaces.writing import ObjectKey, Resource
from support.acting import NOON, SetClock

SECRETS = Resource("", "v1", "secrets", "Secret")
KEY = ObjectKey("ws-1", SECRETS, "shop", "token", "uid-1")
BODY = {"metadata": {"name": "token"}, "data": {"token": "aHVudGVyMg=="}}


@pytest.fixture
def snapshots(database: Database) -> SqlSnapshots:
    return SqlSnapshots(database, AesGcmSealer([bytes(32)]), SetClock())


async def test_what_was_kept_is_found_as_it_was_and_the_later_one_counts(snapshots: SqlSnapshots) -> None:
    assert await snapshots.find("op-1", KEY) is None
    await snapshots.keep("op-1", KEY, {"data": {}})
    await snapshots.keep("op-1", KEY, BODY)
    assert await snapshots.find("op-1", KEY) == BODY
    assert await snapshots.find("op-2", KEY) is None


async def test_nothing_of_it_stands_in_the_database_in_the_clear(snapshots: SqlSnapshots, database: Database) -> None:
    await snapshots.keep("op-1", KEY, BODY)
    async with database.read() as connection:
        (row,) = (await connection.execute(sa.select(cleanup_snapshots))).all()
    assert b"aHVudGVyMg" not in bytes(row.sealed)


async def test_another_key_does_not_open_it_and_without_one_nothing_is_kept(
    snapshots: SqlSnapshots, database: Database
) -> None:
    await snapshots.keep("op-1", KEY, BODY)
    assert snapshots.ready
    other = SqlSnapshots(database, AesGcmSealer([b"k" * 32]), SetClock())
    with pytest.raises(SnapshotUnreadable):
        await other.find("op-1", KEY)
    none = SqlSnapshots(database, None, SetClock())
    assert not none.ready
    with pytest.raises(SnapshotUnreadable):
        await none.find("op-1", KEY)
    with pytest.raises(SnapshotUnreadable):
        await none.keep("op-1", KEY, BODY)


async def test_one_objects_snapshot_does_not_open_as_anothers(snapshots: SqlSnapshots, database: Database) -> None:
    await snapshots.keep("op-1", KEY, BODY)
    async with database.write() as connection:
        await connection.execute(sa.update(cleanup_snapshots).values(operation_id="op-2"))
    with pytest.raises(SnapshotUnreadable):
        await snapshots.find("op-2", KEY)


async def test_what_is_old_is_forgotten(snapshots: SqlSnapshots) -> None:
    await snapshots.keep("op-1", KEY, BODY)
    assert await snapshots.purge(NOON) == 0
    assert await snapshots.purge(NOON + timedelta(seconds=1)) == 1
    assert await snapshots.find("op-1", KEY) is None
