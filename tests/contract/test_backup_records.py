"""Records of backups, on both engines and in the tests' fake."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from opsapi.adapters.sql.backups import SqlBackupRecords
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.tables import audit_entries
from opsapi.backups.model import (
    Ended,
    Held,
    LeftOut,
    Snapshot,
    Status,
    Volume,
)
from opsapi.backups.ports import BackupFilter, BackupRecords
from opsapi.kit.caller import System
from opsapi.operations.model import Failure, State
from opsapi.operations.signals import Signals
from support.acting import NOON, SetClock, make_call, make_new_operation
from support.backup_stores import FakeRecords, make_backup

LATER = NOON + timedelta(hours=1)
BY = System(origin="backups", action="expire")


ENDED = Ended(
    status=Status.PARTIALLY_FAILED,
    finished_at=LATER,
    expires_at=LATER + timedelta(hours=720),
    checksum="a" * 64,
    size_bytes=12_345_678_901,
    volumes_expected=2,
    volumes_captured=1,
    volumes=[
        Volume(
            claim="data-0",
            size="10Gi",
            captured=True,
            snapshot=Snapshot(name="s", namespace="shop", uid="u", handle="h", driver="d", restore_size="10Gi"),
        ),
        Volume(claim="data-1", size="1Gi", reason="the driver cannot"),
    ],
    objects=[Held("ConfigMap", "settings"), Held("Deployment", "web")],
    left_out=[LeftOut("Secret", "keys", "off"), LeftOut("Ingress", "*", "may not be listed", True)],
)


@pytest.fixture
def ledger(database: Database) -> SqlLedger:
    return SqlLedger(database, SetClock(), Signals())


End = Callable[[str, Failure | None], Awaitable[None]]


@pytest.fixture(params=["fake", "database"])
def records(request: pytest.FixtureRequest, database: Database) -> BackupRecords:
    return FakeRecords() if request.param == "fake" else SqlBackupRecords(database, SetClock())


@pytest.fixture
async def begun(records: BackupRecords, ledger: SqlLedger) -> End:
    """The operation op-1 runs; called, it ends so."""
    await ledger.begin(make_new_operation(id="op-1", action="backup"), make_call(), locks=())
    claim = await ledger.claim("worker", timedelta(minutes=1), {("backup", 1)})
    assert claim is not None

    async def end(operation_id: str, error: Failure | None) -> None:
        await ledger.finish(claim, State.FAILED if error else State.CANCELLED, error=error)
        if isinstance(records, FakeRecords):
            records.ended[operation_id] = error

    return end


def everything(**changes: Any) -> BackupFilter:
    return BackupFilter(workspaces=None, **changes)


async def test_a_backup_is_read_as_it_was_opened(records: BackupRecords, begun: End) -> None:
    await records.open(make_backup())
    assert await records.get("backup-1") == make_backup()
    assert await records.get("backup-2") is None


async def test_opening_it_again_changes_nothing(records: BackupRecords, begun: End) -> None:
    await records.open(make_backup())
    await records.close("backup-1", ENDED)
    await records.open(make_backup())
    found = await records.get("backup-1")
    assert found is not None
    assert found.status is Status.PARTIALLY_FAILED


async def test_the_end_of_a_backup_is_kept_whole(records: BackupRecords, begun: End) -> None:
    await records.open(make_backup())
    await records.close("backup-1", ENDED)
    expected = {name: getattr(ENDED, name) for name in ENDED.__struct_fields__}
    assert await records.get("backup-1") == make_backup(**expected)


@pytest.mark.parametrize("error", [Failure(code="WRITE_REFUSED", message="no", details={"reason": "Forbidden"}), None])
async def test_one_whose_operation_has_ended_without_a_word_has_failed(
    records: BackupRecords, begun: End, error: Failure | None
) -> None:
    await records.open(make_backup())
    await begun("op-1", error)
    found = await records.get("backup-1")
    assert found is not None
    assert (found.status, found.error) == (Status.FAILED, error)
    assert [one.id for one in await records.find(everything(status=Status.FAILED))] == ["backup-1"]
    assert await records.find(everything(status=Status.IN_PROGRESS)) == []


async def test_one_that_was_complete_stays_so_however_its_operation_ended(records: BackupRecords, begun: End) -> None:
    await records.open(make_backup())
    await records.close("backup-1", ENDED)
    await begun("op-1", Failure(code="X", message="another application failed"))
    found = await records.get("backup-1")
    assert found is not None
    assert (found.status, found.error) == (Status.PARTIALLY_FAILED, None)


async def test_a_record_whose_operation_is_forgotten_has_failed(database: Database) -> None:
    records = SqlBackupRecords(database, SetClock())
    await records.open(make_backup(operation_id="op-purged"))
    found = await records.get("backup-1")
    assert found is not None
    assert found.status is Status.FAILED


async def test_backups_are_found_by_workspace_application_and_status_the_newest_first(
    records: BackupRecords, begun: End
) -> None:
    for number, (workspace, application) in enumerate([("ws-1", "app-1"), ("ws-1", "app-2"), ("ws-2", "app-1")]):
        at = NOON + timedelta(minutes=number)
        await records.open(
            make_backup(f"backup-{number}", workspace_id=workspace, application_id=application, created_at=at)
        )
    await records.close("backup-1", replace(ENDED, status=Status.COMPLETED))

    async def ids(**wanted: Any) -> list[str]:
        return [one.id for one in await records.find(BackupFilter(**({"workspaces": None} | wanted)))]

    assert await ids() == ["backup-2", "backup-1", "backup-0"]
    assert await ids(workspaces=frozenset({"ws-1"})) == ["backup-1", "backup-0"]
    assert await ids(workspaces=frozenset()) == []
    assert await ids(application_id="app-1") == ["backup-2", "backup-0"]
    assert await ids(status=Status.COMPLETED) == ["backup-1"]
    assert await ids(status=Status.IN_PROGRESS, workspaces=frozenset({"ws-1"})) == ["backup-0"]


async def test_a_list_goes_on_where_it_stopped_also_among_backups_of_one_moment(
    records: BackupRecords, begun: End
) -> None:
    for number in range(5):
        await records.open(make_backup(f"backup-{number}"))
    seen: list[str] = []
    before: tuple[datetime, str] | None = None
    while page := await records.find(everything(before=before, limit=2)):
        seen += [one.id for one in page]
        before = (page[-1].created_at, page[-1].id)
    assert seen == [f"backup-{number}" for number in reversed(range(5))]


async def test_what_is_erased_is_shown_only_to_who_asks_for_it(records: BackupRecords, begun: End) -> None:
    await records.open(make_backup())
    await records.close("backup-1", ENDED)
    await records.note_erased("backup-1", LATER)
    assert await records.find(everything()) == []
    (found,) = await records.find(everything(status=Status.DELETED))
    assert found.id == "backup-1"
    await records.close("backup-1", ENDED)
    again = await records.get("backup-1")
    assert again is not None
    assert again.status is Status.DELETED


async def test_a_verification_is_kept_with_what_it_found(records: BackupRecords, begun: End) -> None:
    await records.open(make_backup())
    await records.close("backup-1", ENDED)
    await records.note_verification("backup-1", LATER, ["objects/a.json is missing"])
    found = await records.get("backup-1")
    assert found is not None
    assert (found.verified_at, found.damage) == (LATER, ["objects/a.json is missing"])
    await records.note_verification("backup-1", LATER + timedelta(hours=1), [])
    mended = await records.get("backup-1")
    assert mended is not None
    assert mended.damage == []


async def test_the_last_complete_backups_size_is_known(records: BackupRecords, begun: End) -> None:
    for number, (status, size) in enumerate([(Status.COMPLETED, 100), (Status.COMPLETED, 200), (Status.FAILED, 300)]):
        await records.open(make_backup(f"backup-{number}", created_at=NOON + timedelta(minutes=number)))
        await records.close(f"backup-{number}", replace(ENDED, status=status, size_bytes=size))
    assert await records.last_size("ws-123", "app-1") == 200
    assert await records.last_size("ws-123", "app-2") is None
    assert await records.last_size("ws-9", "app-1") is None


async def test_due_is_what_has_expired_and_what_failed_and_left_something(records: BackupRecords, begun: End) -> None:
    ends = {
        "expired": replace(ENDED, status=Status.COMPLETED, expires_at=LATER),
        "partial": replace(ENDED, expires_at=LATER - timedelta(minutes=1)),
        "kept": replace(ENDED, status=Status.COMPLETED, expires_at=LATER + timedelta(seconds=1)),
        "failed": replace(ENDED, status=Status.FAILED, expires_at=None),
    }
    for backup_id, ended in ends.items():
        await records.open(make_backup(backup_id))
        await records.close(backup_id, ended)
    await records.open(make_backup("running"))
    assert [one.id for one in await records.due(LATER, 10)] == ["failed", "partial", "expired"]
    assert [one.id for one in await records.due(LATER, 2)] == ["failed", "partial"]
    await records.note_erased("failed", LATER, status=Status.FAILED)
    await records.note_erased("partial", LATER)
    assert [one.id for one in await records.due(LATER, 10)] == ["expired"]
    still = await records.get("failed")
    assert still is not None
    assert still.status is Status.FAILED


async def test_what_was_erased_long_ago_is_forgotten(records: BackupRecords, begun: End) -> None:
    for backup_id, at in (("old", NOON), ("new", LATER)):
        await records.open(make_backup(backup_id))
        await records.note_erased(backup_id, at)
    assert await records.purge(LATER) == 1
    assert await records.get("old") is None
    assert await records.get("new") is not None


async def test_what_the_service_erases_itself_is_audited_once(database: Database) -> None:
    records = SqlBackupRecords(database, SetClock())
    await records.open(make_backup(operation_id="op-gone"))
    for _ in range(2):
        await records.note_erased("backup-1", LATER, by=BY)
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(audit_entries.c.account_id, audit_entries.c.resource))).all()
    assert rows == [("system:backups", "backup/backup-1")]
