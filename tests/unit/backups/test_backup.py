"""An application's backup: what is taken, what is left out, and what counts as complete."""

import msgspec
import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from opsapi.adapters.sql.tables import outbox_events
from opsapi.applications.errors import ApplicationNotFound, ProtectedNamespace
from opsapi.backups import kinds
from opsapi.backups.model import Engine, Held, Status
from opsapi.backups.settings import EngineChoice
from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import DependencyUnavailable, InvalidState, PolicyDenied, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.operations.errors import OperationInProgress, OperationStopped, StalePlan
from opsapi.operations.model import Outcome, State, StepState
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.model import Mode
from support.backing_up import SETTINGS, BackupStage
from support.backup_stores import FakeStore

EVERYTHING = [
    Held("ConfigMap", "db-env"), Held("ConfigMap", "db-settings"), Held("HorizontalPodAutoscaler", "db"),
    Held("Ingress", "db"), Held("PersistentVolumeClaim", "data-db-0"), Held("PersistentVolumeClaim", "data-db-1"),
    Held("PersistentVolumeClaim", "db-extra"), Held("PodDisruptionBudget", "db"), Held("Secret", "db-password"),
    Held("Secret", "db-pull"), Held("Secret", "db-tls"), Held("Service", "db"), Held("Service", "db-headless"),
    Held("ServiceAccount", "db-runner"), Held("StatefulSet", "db"),
]  # fmt: skip


def stored(stage: BackupStage) -> FakeStore:
    assert isinstance(stage.store, FakeStore)
    return stage.store


async def told(stage: BackupStage) -> list[tuple[str, dict[str, object], list[str]]]:
    columns = outbox_events.c
    async with stage.database.read() as connection:
        rows = await connection.execute(
            sa.select(columns.type, columns.data, columns.channels).where(columns.type.like("internal.backup.%"))
        )
        return [(row.type, row.data, row.channels) for row in rows]


async def test_a_backup_holds_everything_of_the_application_and_nothing_of_others(stage: BackupStage) -> None:
    backup = await stage.made()
    assert (backup.status, backup.engine) == (Status.COMPLETED, Engine.MANIFESTS)
    assert backup.objects == EVERYTHING
    assert backup.left_out == []
    assert (backup.volumes_expected, backup.volumes_captured) == (3, 3)
    assert (await stage.last()).outcome is Outcome.CHANGED


async def test_the_answer_is_the_specifications_and_leads_to_the_operation(stage: BackupStage) -> None:
    reply = await stage.back_up(reason="pre_deployment_backup", notification_channels=["slack:#ops"])
    data = reply.data
    assert (reply.status, data.status) == (202, "started")
    assert data.backup_id == f"backup-{(data.operation_id or '').removeprefix('op-')}"
    assert data.started_at == stage.clock.now().replace(microsecond=0)
    assert data.estimated_completion is not None
    assert data.application_id == stage.application_id()


async def test_the_size_is_estimated_from_what_claims_request_and_named_so(stage: BackupStage) -> None:
    reply = await stage.back_up()
    assert (reply.data.backup_size_estimate, reply.data.backup_size_basis) == ("20.5Gi", "pvc_requests")


async def test_without_volumes_nothing_is_known_until_there_is_an_earlier_backup(stage: BackupStage) -> None:
    reply = await stage.back_up(include_volumes=False)
    assert reply.data.backup_size_estimate is None
    assert "backup_size_estimate" in {one.field for one in reply.partial}
    await stage.work()
    again = await stage.back_up(include_volumes=False)
    assert again.data.backup_size_basis == "last_backup"
    held = await stage.records.last_size("ws-123", stage.application_id())
    assert held is not None
    assert again.data.backup_size_estimate is not None


async def test_a_dry_run_shows_what_would_be_taken_and_touches_nothing(stage: BackupStage) -> None:
    reply = await stage.back_up(dry_run=True)
    assert (reply.status, reply.data.status, reply.data.backup_id) == (200, "planned", None)
    plan = reply.data.plan
    assert not isinstance(plan, msgspec.UnsetType)
    assert plan.allowed
    assert [one.step for one in plan.steps] == ["take_snapshots", "write_manifests", "verify_backup"]
    assert plan.details["objects"] == [msgspec.to_builtins(one) for one in EVERYTHING]
    assert {one["claim"] for one in plan.details["volumes"]} == {"data-db-0", "data-db-1", "db-extra"}
    assert stage.objects.writes == []
    assert stored(stage).held == {}
    await stage.back_up(plan_hash=plan.plan_hash)


async def test_a_plan_that_is_no_longer_so_is_stale(stage: BackupStage) -> None:
    reply = await stage.back_up(dry_run=True)
    plan = reply.data.plan
    assert not isinstance(plan, msgspec.UnsetType)
    stage.objects.remove(kinds.INGRESSES, "shop", "db")
    with pytest.raises(StalePlan):
        await stage.back_up(plan_hash=plan.plan_hash)


async def test_snapshots_bear_the_backups_mark_and_names_that_follow_from_it(stage: BackupStage) -> None:
    backup = await stage.made()
    made = [one for one in stage.objects.writes if one.target.startswith("volumesnapshots")]
    assert len(made) == 3
    assert {one.body["metadata"]["annotations"]["opsapi.dev/backup"] for one in made} == {backup.id}
    snapshots = {volume.claim: volume.snapshot for volume in backup.volumes}
    held = snapshots["data-db-0"]
    assert held is not None
    assert (held.handle, held.driver, held.snapshot_class) == ("handle-of-data-db-0", "csi.example", "snap")


async def test_a_volume_that_cannot_be_captured_is_named_and_the_backup_is_not_complete(stage: BackupStage) -> None:
    stage.snapshotter.refuses = {"data-db-1"}
    stage.arrange(settings=replace(SETTINGS, snapshot_seconds=30))
    backup = await stage.made(notification_channels=["slack:#ops"])
    assert backup.status is Status.PARTIALLY_FAILED
    assert (backup.volumes_expected, backup.volumes_captured) == (3, 2)
    (lost,) = [volume for volume in backup.volumes if not volume.captured]
    assert (lost.claim, lost.reason) == ("data-db-1", "the driver cannot")
    operation = await stage.last()
    assert operation.outcome is Outcome.PARTIAL
    ((kind, data, channels),) = await told(stage)
    assert (kind, data["status"], channels) == ("internal.backup.failed", "partially_failed", ["slack:#ops"])


async def test_without_snapshots_in_the_cluster_every_volume_is_named_as_lost(stage: BackupStage) -> None:
    stage.objects.unserved.add("volumesnapshots.snapshot.storage.k8s.io")
    reply = await stage.back_up()
    assert any("cannot be captured" in warning for warning in reply.warnings)
    await stage.work()
    backup = await stage.records.get(reply.data.backup_id or "")
    assert backup is not None
    assert backup.status is Status.PARTIALLY_FAILED
    assert {volume.reason for volume in backup.volumes} == {
        "the cluster does not serve volumesnapshots.snapshot.storage.k8s.io"
    }
    assert stage.objects.writes == []


async def test_a_complete_backup_is_told_as_complete_with_its_channels(stage: BackupStage) -> None:
    backup = await stage.made(notification_channels=["slack:#ops"])
    ((kind, data, channels),) = await told(stage)
    assert kind == "internal.backup.completed"
    assert (data["backup_id"], data["status"], data["objects"]) == (backup.id, "completed", len(EVERYTHING))
    assert channels == ["slack:#ops"]


async def test_a_channel_that_is_not_configured_is_refused_up_front(stage: BackupStage) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await stage.back_up(notification_channels=["slack:#ops", "slack:#typo"])
    assert caught.value.details.fields == {"notification_channels": "not configured: slack:#typo"}  # type: ignore[attr-defined]


async def test_a_retention_policy_that_is_not_configured_is_refused_with_those_that_are(stage: BackupStage) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await stage.back_up(retention_policy="forever")
    assert "known: standard, short, long" in caught.value.message


@pytest.mark.parametrize(("policy", "hours"), [("standard", 720), ("short", 168), ("long", 8760)])
async def test_a_backup_is_kept_as_long_as_its_policy_says(stage: BackupStage, policy: str, hours: int) -> None:
    backup = await stage.made(retention_policy=policy)
    assert backup.expires_at is not None
    assert (backup.expires_at - backup.created_at).total_seconds() == hours * 3600


async def test_secrets_are_not_read_unless_the_configuration_says_so(stage: BackupStage) -> None:
    stage.arrange(settings=replace(SETTINGS, secrets=False))
    looked: list[str] = []
    get = stage.objects.get

    async def watched(key, subresource=""):  # type: ignore[no-untyped-def]
        looked.append(str(key.resource))
        return await get(key, subresource)

    stage.objects.get = watched  # type: ignore[method-assign]
    backup = await stage.made()
    assert "secrets" not in looked
    assert backup.status is Status.COMPLETED
    assert {one.name for one in backup.left_out} == {"db-password", "db-pull", "db-tls"}
    assert not any("secrets" in path for path in stored(stage).held)


async def test_what_may_not_be_read_makes_the_backup_incomplete(stage: BackupStage) -> None:
    """Lists that are refused hide what belongs to the application."""
    stage.objects.refuse["list"] = "Forbidden"
    stage.objects.unserved.add("volumesnapshots.snapshot.storage.k8s.io")
    backup = await stage.made(include_volumes=False)
    assert backup.status is Status.PARTIALLY_FAILED
    assert ("Ingress", "*") not in {(one.kind, one.name) for one in backup.left_out if not one.missed}
    assert any(one.missed and one.kind == "Service" for one in backup.left_out)


async def test_a_reference_to_nothing_is_named_and_does_not_fail_the_backup(stage: BackupStage) -> None:
    stage.objects.remove(kinds.CONFIG_MAPS, "shop", "db-env")
    backup = await stage.made()
    assert backup.status is Status.COMPLETED
    assert [(one.kind, one.name, one.reason) for one in backup.left_out] == [
        ("ConfigMap", "db-env", "it does not exist")
    ]


async def test_the_store_that_lies_is_found_out_before_anything_is_called_complete(stage: BackupStage) -> None:
    store = stored(stage)
    put = store.put

    async def lossy(path: str, data: bytes) -> None:
        await put(path, data[:-1] if path.endswith("statefulsets.apps/db.json") else data)

    store.put = lossy  # type: ignore[method-assign]
    backup = await stage.made()
    assert backup.status is Status.FAILED
    assert backup.error is not None
    assert backup.error.code == "BACKUP_DAMAGED"
    operation = await stage.last()
    assert operation.state is State.ROLLED_BACK
    assert store.held == {}
    assert not [one for one in stage.objects.held if one[0] == kinds.SNAPSHOTS]


async def test_a_store_that_is_away_for_a_while_is_waited_for(stage: BackupStage) -> None:
    store = stored(stage)
    reply = await stage.back_up(include_volumes=False)
    store.away = True
    sleeping = stage.clock.advance

    def back_again(seconds: float) -> None:
        store.away = False
        sleeping(seconds)

    stage.clock.advance = back_again  # type: ignore[method-assign]
    operation = await stage.ended(reply)
    assert operation.state is State.COMPLETED
    assert operation.step("write_manifests").attempts == 2


async def test_an_application_that_was_replaced_meanwhile_is_not_taken_for_the_same(stage: BackupStage) -> None:
    reply = await stage.back_up()
    held = stage.objects.find(kinds.STATEFUL_SETS, "shop", "db")
    assert held is not None
    stage.objects.remove(kinds.STATEFUL_SETS, "shop", "db")
    del held["metadata"]["uid"]
    stage.objects.put(kinds.STATEFUL_SETS, held)
    operation = await stage.ended(reply)
    assert operation.error is not None
    assert operation.error.code == "TARGET_GONE"
    assert stored(stage).held == {}


async def test_two_backups_of_a_workspace_do_not_run_at_once(stage: BackupStage) -> None:
    stage.put_application("web", "Deployment")
    await stage.back_up("db")
    with pytest.raises(OperationInProgress):
        await stage.back_up("web")
    await stage.work()
    await stage.back_up("web")


async def test_a_cancelled_backup_has_failed_and_is_listed_so(stage: BackupStage) -> None:
    stage.snapshotter.after = 1000
    reply = await stage.back_up()
    operation_id = reply.operation_id or ""

    async def cancelled(_seconds: float) -> None:
        await stage.ledger.cancel(operation_id, stage.call())
        raise OperationStopped

    stage.execution._sleep = cancelled
    await stage.work()
    backup = await stage.records.get(reply.data.backup_id or "")
    assert backup is not None
    assert backup.status is Status.FAILED
    assert (await stage.last()).state is State.CANCELLED


async def test_one_that_was_cancelled_before_it_began_is_shown_as_failed_as_well(stage: BackupStage) -> None:
    reply = await stage.back_up()
    backup_id = reply.data.backup_id or ""
    waiting = await stage.reader.find(stage.call(), backup_id, Permission.APPLICATION_READ)
    assert waiting.status is Status.IN_PROGRESS
    await stage.ledger.cancel(reply.operation_id or "", stage.call())
    seen = await stage.reader.find(stage.call(), backup_id, Permission.APPLICATION_READ)
    assert seen.status is Status.FAILED


async def test_a_replay_of_the_call_is_answered_alike(stage: BackupStage) -> None:
    call = msgspec.structs.replace(stage.call(), idempotency_key="once")
    first = await stage.back_up(call=call)
    await stage.work()
    again = await stage.back_up(call=call)
    assert again.data == first.data
    assert again.operation_id == first.operation_id


# refused


async def test_without_velero_and_store_there_is_nothing_to_back_up_with(stage: BackupStage) -> None:
    stage.arrange(with_store=False)
    with pytest.raises(InvalidState, match=r"backups\.store\.url is not set"):
        await stage.back_up()


async def test_velero_that_is_asked_for_and_not_served_is_not_replaced_silently(stage: BackupStage) -> None:
    stage.arrange(settings=replace(SETTINGS, engine=EngineChoice.VELERO))
    with pytest.raises(InvalidState, match=r"does not serve velero\.io"):
        await stage.back_up()


async def test_a_protected_namespace_is_not_operated_on(stage: BackupStage) -> None:
    stage.put_application("dns", namespace="kube-system")
    with pytest.raises(ProtectedNamespace):
        await stage.back_up("dns")


async def test_an_application_that_is_gone_is_not_found(stage: BackupStage) -> None:
    stage.views_settle()
    stage.objects.held.pop((kinds.STATEFUL_SETS, "shop", "db"))
    with pytest.raises(ApplicationNotFound):
        await stage.back_up()


async def test_a_workspace_that_only_observes_can_be_backed_up_as_long_as_nothing_is_written_to_it(
    stage: BackupStage,
) -> None:
    stage.arrange(mode=Mode.OBSERVE)
    with pytest.raises(PolicyDenied):
        await stage.back_up()
    backup = await stage.made(include_volumes=False)
    assert backup.status is Status.COMPLETED
    assert stage.objects.writes == []


async def test_an_unreachable_cluster_is_a_dependency(stage: BackupStage) -> None:
    stage.views_settle()
    stage.application_id()
    stage.objects.away = True
    with pytest.raises(DependencyUnavailable):
        await stage.back_up()


async def test_an_agents_second_backup_within_the_cooldown_waits_and_other_changes_do_not(stage: BackupStage) -> None:
    stage.arrange(policy=PolicySettings())
    agent = stage.call("application:write@ws-123", kind=AccountKind.AGENT)
    await stage.back_up(call=agent)
    await stage.work()
    with pytest.raises(PolicyDenied) as caught:
        await stage.back_up(call=stage.call("application:write@ws-123", kind=AccountKind.AGENT))
    assert caught.value.details.rule == "cooldown"  # type: ignore[attr-defined]
    operation = await stage.last()
    assert f"ws-123/{stage.application_id()}" in operation.locks


async def test_a_caller_may_ask_for_a_persons_decision(stage: BackupStage) -> None:
    reply = await stage.back_up(confirmation_required=True)
    assert reply.data.status == "pending_approval"
    await stage.work()
    assert (await stage.last()).state is State.PENDING_APPROVAL


async def test_an_event_names_the_operation_on_the_application(stage: BackupStage) -> None:
    await stage.made()
    assert len(stage.workloads.events) == 1


async def test_steps_say_what_they_saw(stage: BackupStage) -> None:
    await stage.made()
    operation = await stage.last()
    assert [(step.name, step.state, step.message) for step in operation.steps] == [
        ("take_snapshots", StepState.COMPLETED, "3 of 3 volumes captured"),
        ("write_manifests", StepState.COMPLETED, "15 manifests and their index written"),
        ("verify_backup", StepState.COMPLETED, "Complete: 15 objects, 3 of 3 volumes; read again"),
    ]
