"""Listing, verifying, deleting and expiring backups."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.adapters.sql.tables import audit_entries
from opsapi.backups import kinds
from opsapi.backups.errors import BackupNotFound
from opsapi.backups.model import Backup, Status
from opsapi.backups.views import BackupDetails, BackupParams, BackupsParams, DeleteParams, VerifyBody
from opsapi.kit.caller import AccountKind, Call, System
from opsapi.kit.endpoint import NoBody
from opsapi.kit.errors import InvalidState, PolicyDenied, PolicyDetails, PolicyRule, ValidationFailed
from opsapi.operations.errors import OperationInProgress
from opsapi.operations.model import Operation, Outcome, State
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.model import Mode
from support.backing_up import SETTINGS, BackupStage
from support.backup_stores import FakeStore


def store_of(stage: BackupStage) -> FakeStore:
    assert isinstance(stage.store, FakeStore)
    return stage.store


async def listed(stage: BackupStage, call: Call | None = None, **filters: Any) -> list[str]:
    reply = await stage.reads.list_backups(call or stage.call(), BackupsParams(**filters), NoBody())
    return [one.backup_id for one in reply.data.backups]


async def got(stage: BackupStage, backup_id: str, call: Call | None = None) -> BackupDetails:
    reply = await stage.reads.get_backup(call or stage.call(), BackupParams(backup_id=backup_id), NoBody())
    return reply.data


async def verified(stage: BackupStage, backup: Backup) -> Operation:
    reply = await stage.reads.verify_backup(stage.call(), BackupParams(backup_id=backup.id), VerifyBody())
    return await stage.ended(reply)


async def deleted(stage: BackupStage, backup: Backup) -> Operation:
    reply = await stage.reads.delete_backup(stage.call(), DeleteParams(backup_id=backup.id), NoBody())
    return await stage.ended(reply)


# reading


async def test_a_backup_is_shown_with_what_it_holds_and_what_it_does_not(stage: BackupStage) -> None:
    stage.arrange(settings=replace(SETTINGS, secrets=False))
    backup = await stage.made(reason="before the release")
    shown = await got(stage, backup.id)
    assert (shown.status, shown.intact, shown.objects) == (Status.COMPLETED, True, 12)
    assert {one.name for one in shown.left_out} == {"db-password", "db-pull", "db-tls"}
    assert [volume.captured for volume in shown.volumes] == [True, True, True]
    assert (shown.application, shown.namespace, shown.reason) == ("StatefulSet/db", "shop", "before the release")


async def test_one_that_has_just_been_begun_is_shown_already(stage: BackupStage) -> None:
    reply = await stage.back_up()
    shown = await got(stage, reply.data.backup_id or "")
    assert (shown.status, shown.operation_id) == (Status.IN_PROGRESS, reply.operation_id)


async def test_the_list_goes_on_by_its_cursor_and_refuses_another_lists(stage: BackupStage) -> None:
    made = [(await stage.made(include_volumes=False)).id for _ in range(3)]
    first = await stage.reads.list_backups(stage.call(), BackupsParams(limit=2), NoBody())
    assert first.truncated
    assert first.next_cursor is not None
    rest = await listed(stage, limit=2, cursor=first.next_cursor)
    assert {one.backup_id for one in first.data.backups} | set(rest) == set(made)
    with pytest.raises(ValidationFailed):
        await listed(stage, status=Status.FAILED, cursor=first.next_cursor)


async def test_nobody_sees_the_backups_of_a_workspace_that_they_may_not_read(stage: BackupStage) -> None:
    backup = await stage.made()
    stranger = stage.call("application:read@ws-9")
    assert await listed(stage, stranger) == []
    assert await listed(stage, stranger, workspace="ws-123") == []
    for call, params in ((stranger, backup.id), (stage.call(), "backup-none"), (stage.call(), "x" * 200)):
        with pytest.raises(BackupNotFound) as caught:
            await got(stage, params, call)
        assert caught.value.message == f"No backup {params!r} that this account may see"


async def test_every_null_has_its_reason(stage: BackupStage) -> None:
    reply = await stage.back_up()
    params = BackupParams(backup_id=reply.data.backup_id or "")
    shown = await stage.reads.get_backup(stage.call(), params, NoBody())
    told = {one.field for one in shown.partial}
    plain = msgspec.to_builtins(shown.data)
    empty = {name for name, value in plain.items() if value is None and name not in ("reason", "error", "objects")}
    assert empty <= told


# verifying


async def test_an_intact_backup_is_verified_and_nothing_is_written(stage: BackupStage) -> None:
    backup = await stage.made()
    stage.clock.advance(3600)
    held = dict(store_of(stage).held)
    stage.objects.writes.clear()
    operation = await verified(stage, backup)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)
    assert operation.result is not None
    assert operation.result["intact"] is True
    assert (store_of(stage).held, stage.objects.writes) == (held, [])
    shown = await got(stage, backup.id)
    assert shown.verified_at == stage.clock.now()


async def test_damage_fails_the_verification_and_stands_in_the_backup(stage: BackupStage) -> None:
    backup = await stage.made()
    store_of(stage).flip(f"{backup.location}/objects/services/db.json")
    del store_of(stage).held[f"{backup.location}/objects/services/db-headless.json"]
    operation = await verified(stage, backup)
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert operation.error.code == "BACKUP_DAMAGED"
    damage = ["objects/services/db-headless.json is missing", "objects/services/db.json is not what was written"]
    assert sorted(operation.error.details["damage"]) == damage
    shown = await got(stage, backup.id)
    assert (shown.intact, sorted(shown.damage)) == (False, damage)


async def test_a_lost_snapshot_is_damage_too(stage: BackupStage) -> None:
    backup = await stage.made()
    snapshot = backup.volumes[2].snapshot
    assert snapshot is not None
    stage.objects.remove(kinds.SNAPSHOTS, "shop", snapshot.name)
    operation = await verified(stage, backup)
    assert operation.error is not None
    assert operation.error.details["damage"] == [f"the snapshot of volume {backup.volumes[2].claim} was deleted"]


async def test_a_store_that_is_away_is_no_damage(stage: BackupStage) -> None:
    backup = await stage.made()
    store_of(stage).away = True
    operation = await verified(stage, backup)
    assert operation.error is not None
    assert operation.error.code == "DEPENDENCY_UNAVAILABLE"
    assert (await got(stage, backup.id)).damage == []


async def test_a_workspace_that_observes_can_verify(stage: BackupStage) -> None:
    backup = await stage.made()
    stage.arrange(mode=Mode.OBSERVE)
    assert (await verified(stage, backup)).state is State.COMPLETED


async def test_what_failed_cannot_be_verified(stage: BackupStage) -> None:
    reply = await stage.back_up()
    await stage.ledger.cancel(reply.operation_id or "", stage.call())
    params = BackupParams(backup_id=reply.data.backup_id or "")
    with pytest.raises(InvalidState, match="only what is complete"):
        await stage.reads.verify_backup(stage.call(), params, VerifyBody())


# deleting


async def test_deleting_takes_manifests_and_snapshots_away(stage: BackupStage) -> None:
    backup = await stage.made()
    operation = await deleted(stage, backup)
    assert operation.state is State.COMPLETED
    assert store_of(stage).held == {}
    assert not [place for place in stage.objects.held if place[0] == kinds.SNAPSHOTS]
    assert await listed(stage) == []
    assert (await got(stage, backup.id)).status is Status.DELETED


async def test_only_the_backups_own_snapshots_go(stage: BackupStage) -> None:
    first, second = await stage.made(), await stage.made()
    await deleted(stage, first)
    left = {place[2] for place in stage.objects.held if place[0] == kinds.SNAPSHOTS}
    assert left == {volume.snapshot.name for volume in second.volumes if volume.snapshot}
    assert (await verified(stage, second)).state is State.COMPLETED


async def test_a_snapshot_that_somebody_took_over_is_left_to_them(stage: BackupStage) -> None:
    backup = await stage.made()
    snapshot = backup.volumes[0].snapshot
    assert snapshot is not None
    changes = {"metadata": {"annotations": {"opsapi.dev/backup": "mine-now"}}}
    stage.objects.merge(kinds.SNAPSHOTS, "shop", snapshot.name, changes)
    assert (await deleted(stage, backup)).state is State.COMPLETED
    assert [place[2] for place in stage.objects.held if place[0] == kinds.SNAPSHOTS] == [snapshot.name]


async def test_an_agents_deletion_waits_for_a_person(stage: BackupStage) -> None:
    stage.arrange(policy=PolicySettings())
    backup = await stage.made(include_volumes=False)
    agent = stage.call("workspace:admin@ws-123", "application:read@ws-123", kind=AccountKind.AGENT)
    reply = await stage.reads.delete_backup(agent, DeleteParams(backup_id=backup.id), NoBody())
    assert reply.data.status == "pending_approval"
    await stage.work()
    assert store_of(stage).held != {}


async def test_deletion_needs_the_workspaces_admin(stage: BackupStage) -> None:
    backup = await stage.made()
    call = stage.call("application:write@ws-123")
    with pytest.raises(InsufficientInternalPermissions):
        await stage.reads.delete_backup(call, DeleteParams(backup_id=backup.id), NoBody())


async def test_a_dry_run_of_a_deletion_says_what_would_go(stage: BackupStage) -> None:
    backup = await stage.made()
    reply = await stage.reads.delete_backup(stage.call(), DeleteParams(backup_id=backup.id, dry_run=True), NoBody())
    plan = reply.data.plan
    assert not isinstance(plan, msgspec.UnsetType)
    assert len(plan.details["snapshots"]) == 3
    assert store_of(stage).held != {}


async def test_one_that_is_being_made_is_cancelled_not_deleted(stage: BackupStage) -> None:
    reply = await stage.back_up()
    params = DeleteParams(backup_id=reply.data.backup_id or "")
    with pytest.raises(InvalidState, match="cancel its operation"):
        await stage.reads.delete_backup(stage.call(), params, NoBody())


async def test_what_is_gone_is_not_deleted_again(stage: BackupStage) -> None:
    backup = await stage.made()
    await deleted(stage, backup)
    with pytest.raises(BackupNotFound):
        await stage.reads.delete_backup(stage.call(), DeleteParams(backup_id=backup.id), NoBody())


@pytest.mark.parametrize(
    ("where", "rule"), [("observed", PolicyRule.WORKSPACE_OBSERVES), ("paused", PolicyRule.PAUSED)]
)
async def test_snapshots_of_a_cluster_that_may_not_be_written_to_are_not_deleted(
    stage: BackupStage, where: str, rule: PolicyRule
) -> None:
    backup = await stage.made()
    if where == "observed":
        stage.arrange(mode=Mode.OBSERVE)
    else:
        await stage.ledger.pause("ws-123", System(origin="cli", action="pause"), None)
    with pytest.raises(PolicyDenied) as refused:
        await stage.reads.delete_backup(stage.call(), DeleteParams(backup_id=backup.id), NoBody())
    assert isinstance(refused.value.details, PolicyDetails)
    assert refused.value.details.rule is rule
    await stage.work()
    assert (len(stage.objects.targets("delete")), len(store_of(stage).held)) == (0, 16)


async def test_what_is_being_restored_is_not_deleted_meanwhile(stage: BackupStage) -> None:
    backup = await stage.made()
    await stage.restore(backup, target_namespace="elsewhere")
    with pytest.raises(OperationInProgress):
        await stage.reads.delete_backup(stage.call(), DeleteParams(backup_id=backup.id), NoBody())


# expiring


def _expired(stage: BackupStage) -> None:
    stage.clock.advance(timedelta(hours=720).total_seconds())


async def test_nothing_is_erased_before_its_time(stage: BackupStage) -> None:
    await stage.made()
    stage.clock.advance(timedelta(hours=720).total_seconds() - 60)
    assert await stage.retention.sweep() == 0
    assert store_of(stage).held != {}


async def test_what_has_expired_is_erased_and_audited(stage: BackupStage) -> None:
    backup = await stage.made()
    kept = await stage.made(retention_policy="long", include_volumes=False)
    _expired(stage)
    assert await stage.retention.sweep() == 1
    assert (await got(stage, backup.id)).status is Status.DELETED
    assert {path.split("/")[1] for path in store_of(stage).held} == {kept.id}
    assert not [place for place in stage.objects.held if place[0] == kinds.SNAPSHOTS]
    async with stage.database.read() as connection:
        wanted = sa.select(audit_entries.c.resource).where(audit_entries.c.account_id == "system:backups")
        assert (await connection.execute(wanted)).scalars().all() == [f"backup/{backup.id}"]
    assert await stage.retention.sweep() == 0


async def test_an_expired_backup_with_snapshots_waits_while_its_cluster_may_not_be_written_to(
    stage: BackupStage,
) -> None:
    backup = await stage.made()
    _expired(stage)
    stage.arrange(mode=Mode.OBSERVE)
    assert await stage.retention.sweep() == 0
    assert (await got(stage, backup.id)).status is Status.COMPLETED
    stage.arrange(mode=Mode.ACT)
    assert await stage.retention.sweep() == 1


async def test_nothing_is_erased_while_paused(stage: BackupStage) -> None:
    await stage.made()
    _expired(stage)
    await stage.ledger.pause("ws-123", System(origin="cli", action="pause"), None)
    assert await stage.retention.sweep() == 0


async def test_what_is_being_restored_does_not_expire_meanwhile(stage: BackupStage) -> None:
    backup = await stage.made()
    await stage.restore(backup, target_namespace="elsewhere")
    _expired(stage)
    assert await stage.retention.sweep() == 0


async def test_what_a_failed_backup_left_behind_is_taken_away_and_its_failure_stays(stage: BackupStage) -> None:
    stage.snapshotter.after = 10_000
    stage.arrange(settings=replace(SETTINGS, snapshot_seconds=3600, timeout_seconds=120))
    reply = await stage.back_up()
    operation_id = reply.operation_id or ""

    async def die(_seconds: float) -> None:
        await stage.ledger.cancel(operation_id, stage.call())
        stage.clock.advance(1)

    stage.execution._sleep = die
    operation = await stage.ended(reply)
    assert operation.state is State.CANCELLED
    assert [place for place in stage.objects.held if place[0] == kinds.SNAPSHOTS]
    assert await stage.retention.sweep() == 1
    assert not [place for place in stage.objects.held if place[0] == kinds.SNAPSHOTS]
    assert (await got(stage, reply.data.backup_id or "")).status is Status.FAILED
    assert await stage.retention.sweep() == 0


async def test_a_store_that_is_away_is_tried_again_the_next_time(stage: BackupStage) -> None:
    backup = await stage.made(include_volumes=False)
    _expired(stage)
    store_of(stage).away = True
    assert await stage.retention.sweep() == 0
    store_of(stage).away = False
    assert await stage.retention.sweep() == 1
    assert (await got(stage, backup.id)).status is Status.DELETED
