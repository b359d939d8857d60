"""Restoring: nothing is touched that should not be, what arrives is inert, and what goes wrong is taken away again."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.applications.errors import ManagedExternally, ProtectedNamespace
from opsapi.backups import kinds
from opsapi.backups.archive import Archive
from opsapi.backups.errors import BackupDamaged, BackupNotFound, ObjectsExist
from opsapi.backups.model import RESTORED_BY, Backup, Ended, Status
from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import InvalidState, PolicyDenied, ResourceNotFound
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation, Outcome, State, UndoState
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.model import Mode
from opsapi.workspaces.writing import JsonObject, ObjectKey, Resource, WriteRefused
from support.backing_up import SETTINGS, BackupStage, application
from support.backup_stores import FakeStore
from support.inventory import make_workspace
from support.joining_backups import KEY

ADMIN = "workspace:admin@ws-123"
READ = "application:read@ws-123"
INERT = [
    "configmaps/elsewhere/db-env",
    "configmaps/elsewhere/db-settings",
    "persistentvolumeclaims/elsewhere/data-db-0",
    "persistentvolumeclaims/elsewhere/data-db-1",
    "persistentvolumeclaims/elsewhere/db-extra",
    "poddisruptionbudgets.policy/elsewhere/db",
    "secrets/elsewhere/db-password",
    "secrets/elsewhere/db-pull",
    "secrets/elsewhere/db-tls",
    "serviceaccounts/elsewhere/db-runner",
    "services/elsewhere/db",
    "services/elsewhere/db-headless",
    "statefulsets.apps/elsewhere/db",
]


@pytest.fixture
async def backup(stage: BackupStage) -> Backup:
    found = await stage.made()
    stage.objects.writes.clear()
    stage.workloads.events.clear()
    return found


def held(stage: BackupStage, resource: Resource, name: str = "db", namespace: str = "elsewhere") -> JsonObject:
    found = stage.objects.find(resource, namespace, name)
    assert found is not None, f"{resource} {name} is not in {namespace}"
    return found


async def restored(stage: BackupStage, backup: Backup, **body: Any) -> Operation:
    return await stage.ended(await stage.restore(backup, **({"target_namespace": "elsewhere"} | body)))


# arriving


async def test_a_restore_elsewhere_arrives_inert_and_whole(stage: BackupStage, backup: Backup) -> None:
    operation = await restored(stage, backup)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED)
    created = stage.objects.targets("create")
    assert sorted(one for one in created if "snapshot" not in one) == INERT
    assert held(stage, kinds.STATEFUL_SETS)["spec"]["replicas"] == 0
    assert held(stage, kinds.SERVICES)["spec"]["type"] == "ClusterIP"
    assert "nodePort" not in held(stage, kinds.SERVICES)["spec"]["ports"][0]
    assert stage.objects.find(kinds.INGRESSES, "elsewhere", "db") is None
    assert stage.objects.find(kinds.AUTOSCALERS, "elsewhere", "db") is None
    assert stage.objects.find(kinds.STATEFUL_SETS, "shop", "db") is not None
    assert operation.steps[-1].message == "Verified: StatefulSet db is there, and inert"


async def test_every_object_is_marked_as_the_operations(stage: BackupStage, backup: Backup) -> None:
    operation = await restored(stage, backup)
    for write in stage.objects.writes:
        assert write.body["metadata"]["annotations"][RESTORED_BY] == operation.id
    assert len(stage.workloads.events) == 1


async def test_volumes_come_before_what_mounts_them_and_workloads_last(stage: BackupStage, backup: Backup) -> None:
    await restored(stage, backup)
    order = [target.split("/")[0] for target in stage.objects.targets("create")]
    assert order[:3] == ["volumesnapshotcontents.snapshot.storage.k8s.io"] * 3
    assert order.index("persistentvolumeclaims") > order.index("volumesnapshots.snapshot.storage.k8s.io")
    assert order.index("statefulsets.apps") > max(i for i, one in enumerate(order) if one in ("secrets", "configmaps"))


async def test_claims_are_filled_from_copies_of_their_snapshots(stage: BackupStage, backup: Backup) -> None:
    await restored(stage, backup)
    spec = held(stage, kinds.CLAIMS, "data-db-0")["spec"]
    source = spec["dataSource"]
    copied = held(stage, kinds.SNAPSHOTS, source["name"])
    content = copied["spec"]["source"]["volumeSnapshotContentName"]
    bound = stage.objects.find(kinds.SNAPSHOT_CONTENTS, "", content)
    assert bound is not None
    assert bound["spec"]["source"] == {"snapshotHandle": "handle-of-data-db-0"}
    assert bound["spec"]["deletionPolicy"] == "Retain"
    assert spec["resources"]["requests"]["storage"] == "10Gi"
    assert "volumeName" not in spec


async def test_in_its_own_namespace_the_snapshot_itself_fills_the_claim(stage: BackupStage, backup: Backup) -> None:
    stage.destroy()
    operation = await restored(stage, backup, target_namespace=None)
    assert operation.state is State.COMPLETED, operation.error
    source = held(stage, kinds.CLAIMS, "data-db-0", "shop")["spec"]["dataSource"]["name"]
    assert source in {volume.snapshot.name for volume in backup.volumes if volume.snapshot}
    assert held(stage, kinds.STATEFUL_SETS, "db", "shop")["spec"]["replicas"] == 0


async def test_secrets_come_back_as_they_were(stage: BackupStage, backup: Backup) -> None:
    await restored(stage, backup)
    assert held(stage, kinds.SECRETS, "db-password")["data"] == {"p": "c2VjcmV0"}
    operation = await stage.last()
    assert "c2VjcmV0" not in repr(msgspec.to_builtins(operation))


async def test_an_activated_restore_runs_is_scaled_and_reached_as_before(stage: BackupStage, backup: Backup) -> None:
    def run(verb: str, target: str) -> None:
        if (verb, target) == ("create", "statefulsets.apps/elsewhere/db"):
            made = held(stage, kinds.STATEFUL_SETS)
            status = {"replicas": 2, "readyReplicas": 2, "observedGeneration": made["metadata"]["generation"]}
            stage.objects.put(kinds.STATEFUL_SETS, made | {"status": status})

    stage.objects.after = run
    operation = await restored(stage, backup, activate=True)
    assert operation.state is State.COMPLETED, operation.error
    assert held(stage, kinds.STATEFUL_SETS)["spec"]["replicas"] == 2
    assert held(stage, kinds.SERVICES)["spec"]["type"] == "LoadBalancer"
    held(stage, kinds.INGRESSES)
    held(stage, kinds.AUTOSCALERS)
    assert operation.steps[-1].message == "Verified: 2 of 2 replicas are ready"


async def test_an_activated_restore_that_never_gets_ready_is_undone(stage: BackupStage, backup: Backup) -> None:
    before = set(stage.objects.held)
    operation = await restored(stage, backup, activate=True)
    assert operation.state is State.ROLLED_BACK
    assert operation.error is not None
    assert operation.error.code == "NOT_READY"
    assert set(stage.objects.held) == before


async def test_without_volumes_claims_are_left_alone(stage: BackupStage, backup: Backup) -> None:
    operation = await restored(stage, backup, include_volumes=False)
    assert operation.state is State.COMPLETED
    assert not any("persistentvolumeclaims" in one or "snapshot" in one for one in stage.objects.targets("create"))


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
async def test_other_workloads_arrive_inert_as_well(stage: BackupStage, kind: str) -> None:
    stage.put_application("web", kind)
    backup = await stage.made("web", include_volumes=False)
    operation = await restored(stage, backup, include_volumes=False)
    assert operation.state is State.COMPLETED, operation.error
    assert operation.steps[-1].message == f"Verified: {kind} web is there, and inert"


# nothing is overwritten


async def test_existing_objects_are_listed_and_nothing_is_created(stage: BackupStage, backup: Backup) -> None:
    stage.objects.put(
        kinds.CONFIG_MAPS, {"metadata": {"name": "db-env", "namespace": "elsewhere"}, "data": {"old": "1"}}
    )
    stage.objects.put(kinds.SERVICES, {"metadata": {"name": "db", "namespace": "elsewhere"}})
    with pytest.raises(ObjectsExist) as caught:
        await stage.restore(backup, target_namespace="elsewhere")
    details: Any = caught.value.details
    assert details.existing == ["ConfigMap/db-env", "Service/db"]
    assert stage.objects.writes == []


async def test_what_appears_between_plan_and_restore_stops_it_untouched(stage: BackupStage, backup: Backup) -> None:
    reply = await stage.restore(backup, target_namespace="elsewhere")
    stage.objects.put(kinds.INGRESSES, {"metadata": {"name": "db", "namespace": "elsewhere"}})
    stage.objects.put(kinds.SECRETS, {"metadata": {"name": "db-tls", "namespace": "elsewhere"}})
    operation = await stage.ended(reply)
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert (operation.error.code, operation.error.details["existing"]) == ("OBJECTS_EXIST", ["Secret/db-tls"])
    assert stage.objects.writes == []


async def test_a_name_that_is_taken_in_the_last_moment_undoes_the_rest_and_keeps_the_others(
    stage: BackupStage, backup: Backup
) -> None:
    theirs = {"metadata": {"name": "db", "namespace": "elsewhere"}, "spec": {"type": "ClusterIP"}}

    def barge_in(verb: str, target: str) -> None:
        if (verb, target) == ("create", "services/elsewhere/db"):
            stage.objects.put(kinds.SERVICES, theirs)

    stage.objects.before = barge_in
    before = set(stage.objects.held)
    operation = await restored(stage, backup)
    assert operation.state is State.ROLLED_BACK
    assert operation.error is not None
    assert operation.error.code == "OBJECTS_EXIST"
    assert set(stage.objects.held) == before | {(kinds.SERVICES, "elsewhere", "db")}


async def test_the_same_namespace_is_refused_while_the_application_is_there(stage: BackupStage, backup: Backup) -> None:
    with pytest.raises(ObjectsExist):
        await stage.restore(backup)


# damaged


def flipped(stage: BackupStage, backup: Backup) -> None:
    assert isinstance(stage.store, FakeStore)
    stage.store.flip(f"{backup.location}/objects/statefulsets.apps/db.json", 10)


@pytest.mark.parametrize(
    "name", ["objects/statefulsets.apps/db.json", "objects/secrets/db-password.json", "index.json"]
)
@pytest.mark.parametrize("how", ["flip", "remove", "cut"])
async def test_a_damaged_backup_is_refused_before_anything_is_touched(
    stage: BackupStage, backup: Backup, name: str, how: str
) -> None:
    store, path = stage.store, f"{backup.location}/{name}"
    assert isinstance(store, FakeStore)
    match how:
        case "flip":
            store.flip(path, 5)
        case "remove":
            del store.held[path]
        case _:
            store.held[path] = store.held[path][:-3]
    with pytest.raises(BackupDamaged):
        await stage.restore(backup, target_namespace="elsewhere")
    assert stage.objects.writes == []


async def test_damage_after_the_plan_stops_the_operation_in_its_first_step(stage: BackupStage, backup: Backup) -> None:
    reply = await stage.restore(backup, target_namespace="elsewhere")
    flipped(stage, backup)
    operation = await stage.ended(reply)
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert operation.error.code == "BACKUP_DAMAGED"
    assert [step.name for step in operation.steps if step.attempts] == ["verify_backup"]
    assert stage.objects.writes == []


async def test_a_snapshot_that_was_deleted_is_damage(stage: BackupStage, backup: Backup) -> None:
    snapshot = backup.volumes[0].snapshot
    assert snapshot is not None
    stage.objects.remove(kinds.SNAPSHOTS, "shop", snapshot.name)
    with pytest.raises(BackupDamaged, match="was deleted"):
        await stage.restore(backup, target_namespace="elsewhere")
    await stage.restore(backup, target_namespace="elsewhere", include_volumes=False)


async def test_a_volume_that_was_never_captured_is_not_restored_empty(stage: BackupStage) -> None:
    stage.snapshotter.refuses = {"data-db-1"}
    stage.arrange(settings=replace(SETTINGS, snapshot_seconds=10))
    backup = await stage.made()
    with pytest.raises(InvalidState, match="data-db-1: send include_volumes: false"):
        await stage.restore(backup, target_namespace="elsewhere")


async def test_a_backup_that_failed_or_is_being_made_is_not_restored(stage: BackupStage) -> None:
    reply = await stage.back_up()
    running = await stage.reader.find(stage.call(), reply.data.backup_id or "", Permission.WORKSPACE_ADMIN)
    with pytest.raises(InvalidState, match="in_progress"):
        await stage.restore(running, target_namespace="elsewhere")


# refused by the place


@pytest.mark.parametrize(("namespace", "error"), [("kube-system", ProtectedNamespace), ("nowhere", ResourceNotFound)])
async def test_a_place_that_is_protected_or_not_there_is_refused(
    stage: BackupStage, backup: Backup, namespace: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await stage.restore(backup, target_namespace=namespace)


async def test_a_namespace_that_is_labelled_as_protected_is_refused(stage: BackupStage, backup: Backup) -> None:
    labels = {"opsapi.dev/protected": "true"}
    stage.objects.put(kinds.NAMESPACES, {"metadata": {"name": "elsewhere", "namespace": "", "labels": labels}})
    with pytest.raises(PolicyDenied):
        await stage.restore(backup, target_namespace="elsewhere")


async def test_what_a_gitops_tool_keeps_is_brought_back_by_its_source(stage: BackupStage) -> None:
    stage.objects.put(kinds.STATEFUL_SETS, application(**{"argocd.argoproj.io/instance": "shop"}))
    backup = await stage.made(include_volumes=False)
    stage.destroy()
    with pytest.raises(ManagedExternally):
        await stage.restore(backup, include_volumes=False)
    operation = await restored(stage, backup, include_volumes=False)
    assert operation.state is State.COMPLETED
    assert "argocd.argoproj.io/instance" not in held(stage, kinds.STATEFUL_SETS)["metadata"]["labels"]


# who may


async def test_an_agent_needs_a_persons_approval(stage: BackupStage, backup: Backup) -> None:
    stage.arrange(policy=PolicySettings())
    agent = stage.call(ADMIN, READ, kind=AccountKind.AGENT)
    reply = await stage.restore(backup, call=agent, target_namespace="elsewhere")
    assert (reply.status, reply.data.status) == (202, "pending_approval")
    operation = await stage.ledger.get(reply.operation_id or "")
    assert operation is not None
    assert operation.approval is not None
    assert "restore" in operation.approval.rules


async def test_admin_is_needed_where_it_came_from(stage: BackupStage, backup: Backup) -> None:
    with pytest.raises(InsufficientInternalPermissions):
        await stage.restore(backup, call=stage.call("workspace:write@ws-123", READ), target_namespace="elsewhere")


async def test_admin_is_needed_where_it_goes_as_well(stage: BackupStage, backup: Backup) -> None:
    with pytest.raises(ResourceNotFound):
        await stage.restore(backup, call=stage.call(ADMIN, READ), target_workspace="ws-9", target_namespace="elsewhere")


async def test_a_workspace_that_one_may_only_read_takes_no_restore(stage: BackupStage, backup: Backup) -> None:
    await stage.clusters.open(make_workspace("ws-9"))
    call = stage.call(ADMIN, READ, "workspace:write@ws-9")
    with pytest.raises(InsufficientInternalPermissions):
        await stage.restore(backup, call=call, target_workspace="ws-9", target_namespace="elsewhere")


async def test_a_backup_that_became_another_since_the_plan_is_not_restored(stage: BackupStage, backup: Backup) -> None:
    reply = await stage.restore(backup, target_namespace="elsewhere")
    archive = Archive(stage.store, AesGcmSealer([KEY]))
    written = await archive.write(backup, [], volumes=[], left_out=[], cluster_version=None, at=stage.clock.now())
    ended = Ended(status=Status.COMPLETED, finished_at=stage.clock.now(), checksum=written.checksum)
    await stage.records.close(backup.id, ended)
    operation = await stage.ended(reply)
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert operation.error.code == "INVALID_STATE"
    assert stage.objects.writes == []


async def test_a_snapshot_without_its_handle_is_restored_in_its_own_namespace_alone(stage: BackupStage) -> None:
    """Where the credentials may not read VolumeSnapshotContents."""
    get = stage.objects.get

    async def blind(key: ObjectKey, subresource: str = "") -> JsonObject:
        if key.resource == kinds.SNAPSHOT_CONTENTS:
            raise WriteRefused("Forbidden", "volumesnapshotcontents is forbidden", 403)
        return await get(key, subresource)

    stage.objects.get = blind  # type: ignore[method-assign]
    backup = await stage.made()
    assert backup.status is Status.COMPLETED
    with pytest.raises(InvalidState, match="cannot bring back the volumes"):
        await stage.restore(backup, target_namespace="elsewhere")
    stage.destroy()
    assert (await restored(stage, backup, target_namespace=None)).state is State.COMPLETED


async def test_another_workspaces_backup_is_not_there(stage: BackupStage, backup: Backup) -> None:
    with pytest.raises(BackupNotFound):
        await stage.restore(backup, call=stage.call("workspace:admin@ws-9", "application:read@ws-9"))


# dry run


async def test_a_dry_run_lists_each_object_with_the_servers_verdict(stage: BackupStage, backup: Backup) -> None:
    reply = await stage.restore(backup, target_namespace="elsewhere", dry_run=True)
    assert (reply.status, reply.data.status) == (200, "planned")
    plan = reply.data.plan
    assert not isinstance(plan, msgspec.UnsetType)
    assert plan.allowed
    objects = plan.details["objects"]
    assert len(objects) == len(INERT) + 6
    assert {one["accepted"] for one in objects} == {True}
    assert len(stage.objects.dry_runs) == len(objects)
    assert stage.objects.writes == []
    assert any("arrives inert" in warning for warning in reply.warnings)


async def test_a_dry_run_shows_what_the_server_would_refuse(stage: BackupStage, backup: Backup) -> None:
    stage.objects.refuse["create"] = "Forbidden"
    reply = await stage.restore(backup, target_namespace="elsewhere", dry_run=True)
    plan = reply.data.plan
    assert not isinstance(plan, msgspec.UnsetType)
    assert not plan.allowed
    assert {one["accepted"] for one in plan.details["objects"]} == {False}


async def test_a_workspace_that_observes_is_not_asked(stage: BackupStage, backup: Backup) -> None:
    stage.arrange(mode=Mode.OBSERVE)
    reply = await stage.restore(backup, target_namespace="elsewhere", dry_run=True)
    plan = reply.data.plan
    assert not isinstance(plan, msgspec.UnsetType)
    assert not plan.allowed
    assert {one["accepted"] for one in plan.details["objects"]} == {None}
    assert stage.objects.dry_runs == []


# undone


async def test_a_refused_object_undoes_what_was_created_before_it(stage: BackupStage, backup: Backup) -> None:
    def refuse(verb: str, target: str) -> None:
        stage.objects.refuse.pop("create", None)
        if (verb, target) == ("create", "statefulsets.apps/elsewhere/db"):
            stage.objects.refuse["create"] = "Forbidden"

    stage.objects.before = refuse
    before = set(stage.objects.held)
    operation = await restored(stage, backup)
    assert operation.state is State.ROLLED_BACK
    assert operation.error is not None
    assert operation.error.code == "WRITE_REFUSED"
    assert set(stage.objects.held) == before
    undo = operation.step("create_objects").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE


async def test_what_somebody_took_over_since_is_not_deleted_by_the_undo(stage: BackupStage, backup: Backup) -> None:
    def meddle(verb: str, target: str) -> None:
        stage.objects.refuse.pop("create", None)
        if (verb, target) == ("create", "statefulsets.apps/elsewhere/db"):
            stage.objects.refuse["create"] = "Forbidden"
            changes = {"metadata": {"annotations": {RESTORED_BY: None}}}
            stage.objects.merge(kinds.CONFIG_MAPS, "elsewhere", "db-env", changes)

    stage.objects.before = meddle
    operation = await restored(stage, backup)
    assert operation.state is State.FAILED
    assert held(stage, kinds.CONFIG_MAPS, "db-env") is not None
    assert stage.objects.find(kinds.CONFIG_MAPS, "elsewhere", "db-settings") is None
    undo = operation.step("create_objects").undo
    assert undo is not None
    assert undo.state is UndoState.SKIPPED
    assert "configmaps/elsewhere/db-env" in undo.reason


async def test_a_lost_answer_is_looked_for_and_nothing_is_created_twice(stage: BackupStage, backup: Backup) -> None:
    lost = {"configmaps/elsewhere/db-env", "statefulsets.apps/elsewhere/db"}

    def lose(verb: str, target: str) -> None:
        stage.objects.lost = verb == "create" and target in lost
        lost.discard(target)

    stage.objects.before = lose
    operation = await restored(stage, backup)
    assert operation.state is State.COMPLETED, operation.error
    created = stage.objects.targets("create")
    assert len(created) == len(set(created))
    found = [name for name, item in operation.step("create_objects").items.items() if item.message == "found"]
    assert sorted(found) == ["configmaps/elsewhere/db-env", "statefulsets.apps/elsewhere/db"]
