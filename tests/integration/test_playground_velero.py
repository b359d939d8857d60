"""The stand-in for Velero: what its objects say, what it stores, and what comes back from it."""

from collections.abc import Callable
from typing import Any

import pytest

from opsapi.playground.faults.world import FaultSpec
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.velero.storage import BACKUPS, DELETIONS, LOCATIONS, RESTORES, SCHEDULES
from opsapi.playground.world import World
from support.playground_world import container, deployment, pods_of, ready_pods, service, small_world

NAMESPACE = "velero"
ENDED = ("Completed", "PartiallyFailed", "Failed", "FailedValidation")


def velero(kind: str, name: str, **spec: Any) -> Obj:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "velero.io/v1", "kind": kind, "metadata": meta, "spec": spec}


def namespace(name: str, **labels: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def config(name: str, where: str = "shop", value: str = "1", **labels: str) -> Obj:
    meta: Obj = {"name": name, "namespace": where, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"value": value}}


def moved(obj: Obj, where: str = "shop") -> Obj:
    return {**obj, "metadata": {**obj["metadata"], "namespace": where}}


def shop(*, snapshots: bool = True) -> World:
    """A namespace with a Deployment on a claim, a Service and two ConfigMaps, all running."""
    world = small_world()
    if snapshots:
        world.install("snapshots")
    world.install("velero")
    world.apply(namespace("shop", team="books"))
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    meta = {"name": "data", "namespace": "shop"}
    world.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": wanted})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    world.apply(moved(deployment("web", container(), replicas=2, pod={"volumes": [volume]})))
    world.apply(moved(service("web")))
    world.apply(config("settings", app="web"))
    world.apply(config("notes"))
    world.advance(60)
    world.write_volume("shop", "data", "the orders of Monday")
    return world


def status(world: World, resource: str, name: str) -> Obj:
    return dict(world.registry.get(resource, NAMESPACE, name).get("status") or {})


def ended(world: World, resource: str, name: str, within: float = 900.0) -> Obj:
    """The status with which it ends."""
    world.advance_until(lambda: status(world, resource, name).get("phase") in ENDED, within)
    return status(world, resource, name)


def back_up(world: World, name: str = "one", **spec: Any) -> Obj:
    world.apply(velero("Backup", name, **({"includedNamespaces": ["shop"]} | spec)))
    return ended(world, BACKUPS, name)


def restore(world: World, name: str = "again", **spec: Any) -> Obj:
    world.apply(velero("Restore", name, **({"backupName": "one"} | spec)))
    return ended(world, RESTORES, name)


def labels_of(world: World, name: str = "one") -> set[str]:
    stored = world.backups.get(name)
    assert stored is not None
    return {item.label for item in stored.items if item.resource not in ("events", "pods", "replicasets.apps")}


# Backups


def test_a_backup_goes_through_its_phases_and_says_what_it_did() -> None:
    world = shop()
    world.apply(velero("Backup", "one", includedNamespaces=["shop"], ttl="48h0m0s"))
    seen = []
    for _ in range(20):
        world.settle()
        phase = status(world, BACKUPS, "one")["phase"]
        if phase not in seen:
            seen.append(phase)
        world.advance(1)
    assert seen == ["InProgress", "WaitingForPluginOperations", "Finalizing", "Completed"]
    stored = world.backups.get("one")
    assert stored is not None
    count = len(stored.items)
    assert status(world, BACKUPS, "one") == {
        "version": 1,
        "formatVersion": "1.1.0",
        "phase": "Completed",
        "startTimestamp": "2026-03-02T09:01:00Z",
        "completionTimestamp": "2026-03-02T09:01:08Z",
        "expiration": "2026-03-04T09:01:00Z",
        "progress": {"totalItems": count, "itemsBackedUp": count},
        "csiVolumeSnapshotsAttempted": 1,
        "csiVolumeSnapshotsCompleted": 1,
        "backupItemOperationsAttempted": 1,
        "backupItemOperationsCompleted": 1,
    }
    backup = world.registry.get(BACKUPS, NAMESPACE, "one")
    assert backup["spec"]["storageLocation"] == "default"
    assert backup["metadata"]["labels"] == {"velero.io/storage-location": "default"}
    assert list(world.registry.iterate("volumesnapshots.snapshot.storage.k8s.io")) == []
    assert len(world.disks.snapshots()) == 1


def test_a_backup_holds_the_manifests_as_they_were_when_it_began() -> None:
    world = shop()
    back_up(world)
    world.apply(config("settings", value="2", app="web"))
    stored = world.backups.get("one")
    assert stored is not None
    kept = next(item for item in stored.items if item.label == "configmaps/shop/settings")
    assert kept.obj["data"] == {"value": "1"}
    assert len(stored.checksum()) == 64
    back_up(world, "two")
    later = world.backups.get("two")
    assert later is not None
    assert later.checksum() != stored.checksum()


def test_the_spec_chooses_namespaces_resources_and_labels() -> None:
    world = shop()
    world.apply(namespace("other"))
    world.apply(config("elsewhere", "other"))
    everything = {
        "configmaps/shop/kube-root-ca.crt",
        "configmaps/shop/notes",
        "configmaps/shop/settings",
        "deployments.apps/shop/web",
        "endpoints/shop/web",
        "namespaces/shop",
        "persistentvolumeclaims/shop/data",
        "serviceaccounts/shop/default",
        "services/shop/web",
    }
    back_up(world)
    found = {one for one in labels_of(world) if not one.startswith(("endpointslices", "persistentvolumes/"))}
    assert found == everything
    assert any(one.startswith("persistentvolumes/pvc-") for one in labels_of(world))

    back_up(world, "kinds", includedResources=["cm", "deployments.apps"], snapshotVolumes=False)
    assert labels_of(world, "kinds") == {
        "configmaps/shop/kube-root-ca.crt",
        "configmaps/shop/notes",
        "configmaps/shop/settings",
        "deployments.apps/shop/web",
        "namespaces/shop",
    }
    back_up(world, "labelled", labelSelector={"matchLabels": {"app": "web"}}, includedResources=["configmaps"])
    assert labels_of(world, "labelled") == {"configmaps/shop/settings", "namespaces/shop"}
    several = [{"matchLabels": {"app": "nosuch"}}, {"matchLabels": {"app": "web"}}]
    back_up(world, "either", orLabelSelectors=several, includedResources=["configmaps"])
    assert labels_of(world, "either") == {"configmaps/shop/settings", "namespaces/shop"}
    back_up(world, "without", includedNamespaces=["*"], excludedNamespaces=["shop", "kube-system"])
    assert "configmaps/other/elsewhere" in labels_of(world, "without")
    assert not any("/shop/" in one for one in labels_of(world, "without"))


def test_what_is_labelled_to_stay_out_stays_out() -> None:
    world = shop()
    world.apply(config("private", **{"velero.io/exclude-from-backup": "true"}))
    back_up(world)
    assert "configmaps/shop/private" not in labels_of(world)


def test_a_volume_that_cannot_be_snapshotted_makes_the_backup_partial() -> None:
    world = shop()
    world.faults.inject(FaultSpec("snapshot-fails", namespace="shop", claim="data"))
    world.apply(velero("Backup", "one", includedNamespaces=["shop"], csiSnapshotTimeout="2m0s"))
    world.advance(100)
    assert status(world, BACKUPS, "one")["phase"] == "WaitingForPluginOperations"
    found = ended(world, BACKUPS, "one")
    assert found["phase"] == "PartiallyFailed"
    assert found["errors"] == 1
    assert found["csiVolumeSnapshotsAttempted"] == 1
    assert "csiVolumeSnapshotsCompleted" not in found
    stored = world.backups.get("one")
    assert stored is not None
    assert "cannot take a snapshot of this volume" in stored.errors[0]
    assert stored.snapshots == ()


def test_a_class_without_veleros_label_is_taken_only_where_it_is_the_only_one() -> None:
    world = shop()
    classes = "volumesnapshotclasses.snapshot.storage.k8s.io"
    world.registry.delete(classes, "", "standard")
    found = back_up(world)
    assert (found["phase"], found["errors"], found["csiVolumeSnapshotsAttempted"]) == ("PartiallyFailed", 1, 1)


def test_without_snapshot_kinds_a_backup_completes_and_attempts_none() -> None:
    world = shop(snapshots=False)
    found = back_up(world)
    assert found["phase"] == "Completed"
    assert "csiVolumeSnapshotsAttempted" not in found


def _read_only(world: World) -> None:
    location = world.registry.get(LOCATIONS, NAMESPACE, "default")
    changed = {**location, "spec": {**location["spec"], "accessMode": "ReadOnly"}}
    world.registry.update(LOCATIONS, NAMESPACE, "default", changed)


def _away(world: World) -> None:
    world.faults.inject(FaultSpec("backup-storage-away"))
    world.advance(60)


def _nothing(_world: World) -> None:
    pass


@pytest.mark.parametrize(
    ("before", "spec", "told"),
    [
        (_away, {}, "backup can't be created because BackupStorageLocation default is in Unavailable status."),
        (
            _read_only,
            {},
            "backup can't be created because backup storage location default is currently in read-only mode",
        ),
        (
            _nothing,
            {"storageLocation": "nosuch"},
            "the default nosuch was not found. Please address this issue (see `velero backup-location -h` for options) "
            'and create a new backup. Error: backupstoragelocations.velero.io "nosuch" not found',
        ),
        (
            _nothing,
            {"includedNamespaces": ["a"], "excludedNamespaces": ["a"]},
            "Invalid included/excluded namespace lists: excludes list cannot contain an item in the includes list: a",
        ),
        (
            _nothing,
            {"includedResources": ["*", "pods"]},
            "Invalid included/excluded resource lists: includes list must either contain '*' only, or a non-empty list "
            "of items",
        ),
        (
            _nothing,
            {"labelSelector": {"matchLabels": {"a": "b"}}, "orLabelSelectors": [{"matchLabels": {"a": "b"}}]},
            "encountered labelSelector as well as orLabelSelectors in backup spec, only one can be specified",
        ),
    ],
    ids=["location away", "read-only", "no location", "namespaces", "resources", "selectors"],
)
def test_a_backup_that_makes_no_sense_fails_validation(
    before: Callable[[World], None], spec: dict[str, Any], told: str
) -> None:
    world = shop()
    before(world)
    found = back_up(world, **spec)
    assert found["phase"] == "FailedValidation"
    assert len(found["validationErrors"]) == 1
    assert found["validationErrors"][0].endswith(told)
    assert "startTimestamp" not in found
    assert world.backups.get("one") is None


def test_storage_that_goes_away_under_way_fails_the_backup_and_leaves_no_snapshot() -> None:
    world = shop()
    world.apply(velero("Backup", "one", includedNamespaces=["shop"]))
    world.advance(2)
    world.faults.inject(FaultSpec("backup-storage-away"))
    found = ended(world, BACKUPS, "one")
    assert found["phase"] == "Failed"
    assert "RequestError" in found["failureReason"]
    assert world.backups.get("one") is None
    assert world.disks.snapshots() == {}


def test_a_server_that_is_down_leaves_everything_as_it_is_until_it_is_back() -> None:
    world = shop()
    fault = world.faults.inject(FaultSpec("velero-down"))
    world.apply(velero("Backup", "one", includedNamespaces=["shop"]))
    world.advance(600)
    assert status(world, BACKUPS, "one") == {}
    world.faults.clear(fault.id)
    assert ended(world, BACKUPS, "one")["phase"] == "Completed"


def test_backups_run_one_at_a_time() -> None:
    world = shop()
    for name in ("one", "two"):
        world.apply(velero("Backup", name, includedNamespaces=["shop"]))
    world.settle()
    assert [status(world, BACKUPS, name)["phase"] for name in ("one", "two")] == ["InProgress", "New"]
    assert ended(world, BACKUPS, "two")["phase"] == "Completed"
    assert status(world, BACKUPS, "one")["phase"] == "Completed"


def test_the_location_is_validated_every_minute() -> None:
    world = shop()
    assert status(world, LOCATIONS, "default")["phase"] == "Available"
    fault = world.faults.inject(FaultSpec("backup-storage-away", location="default"))
    world.advance(61)
    found = status(world, LOCATIONS, "default")
    assert found["phase"] == "Unavailable"
    assert found["message"].startswith('BackupStorageLocation "default" is unavailable')
    world.faults.clear(fault.id)
    world.advance(61)
    assert "message" not in status(world, LOCATIONS, "default")
    assert status(world, LOCATIONS, "default")["phase"] == "Available"


def test_a_wrong_type_is_refused_by_the_definition() -> None:
    world = shop()
    with pytest.raises(Exception, match=r"spec\.includedNamespaces in body must be of type array"):
        world.apply(velero("Backup", "one", includedNamespaces="shop"))


# Restores


def test_a_namespace_that_was_lost_comes_back_whole_with_its_data() -> None:
    world = shop()
    before = world.volume_contents("shop", "data")
    back_up(world)
    world.write_volume("shop", "data", "a mistake")
    world.registry.delete("namespaces", "", "shop")
    world.advance(60)
    assert world.registry.find("namespaces", "", "shop") is None
    found = restore(world)
    assert found["phase"] == "Completed"
    assert "errors" not in found
    assert "warnings" not in found
    assert found["progress"]["totalItems"] == found["progress"]["itemsRestored"] == 11
    assert found["startTimestamp"] < found["completionTimestamp"]
    world.advance(60)
    assert world.registry.get("namespaces", "", "shop")["metadata"]["labels"]["team"] == "books"
    assert world.volume_contents("shop", "data") == before
    assert len(ready_pods(world, "web", "shop")) == 2
    sets = list(world.registry.iterate("replicasets.apps", "shop"))
    assert len(sets) == 1
    assert sets[0]["metadata"]["ownerReferences"][0]["kind"] == "Deployment"
    labels = world.registry.get("configmaps", "shop", "settings")["metadata"]["labels"]
    assert labels == {"app": "web", "velero.io/backup-name": "one", "velero.io/restore-name": "again"}


def test_a_restore_into_another_namespace_leaves_the_first_alone() -> None:
    world = shop()
    back_up(world)
    world.write_volume("shop", "data", "what came later")
    pods = {pod["metadata"]["uid"] for pod in pods_of(world, "web", "shop")}
    found = restore(world, namespaceMapping={"shop": "rehearsal"})
    assert found["phase"] == "Completed"
    world.advance(60)
    assert {pod["metadata"]["uid"] for pod in pods_of(world, "web", "shop")} == pods
    assert len(ready_pods(world, "web", "rehearsal")) == 2
    assert world.volume_contents("rehearsal", "data").revision == 1
    assert world.volume_contents("shop", "data").revision == 2
    first, second = (world.registry.get("services", where, "web")["spec"] for where in ("shop", "rehearsal"))
    assert first["clusterIP"] != second["clusterIP"]


@pytest.mark.parametrize(
    ("policy", "told", "value"),
    [
        (
            None,
            "could not restore, ConfigMap:settings already exists. Warning: the in-cluster version is different",
            "2",
        ),
        ("none", 'could not restore, ConfigMap "settings" already exists. Warning: the in-cluster version is', "2"),
        ("update", "", "1"),
    ],
)
def test_what_exists_and_differs_is_a_warning_or_is_updated(policy: str | None, told: str, value: str) -> None:
    world = shop()
    back_up(world, includedResources=["configmaps"], snapshotVolumes=False)
    world.apply(config("settings", value="2", app="web"))
    world.registry.delete("configmaps", "shop", "notes")
    spec = {} if policy is None else {"existingResourcePolicy": policy}
    found = restore(world, **spec)
    assert found["phase"] == "Completed"
    assert found.get("warnings", 0) == (1 if told else 0)
    results = world.backups.results["again"]
    assert results["errors"] == []
    assert [one[: len(told)] for one in results["warnings"]] == ([told] if told else [])
    assert world.registry.get("configmaps", "shop", "settings")["data"] == {"value": value}
    assert world.registry.get("configmaps", "shop", "notes")["data"] == {"value": "1"}


def test_a_restore_takes_only_what_it_names() -> None:
    world = shop()
    back_up(world)
    world.registry.delete("namespaces", "", "shop")
    world.advance(60)
    found = restore(world, includedResources=["configmaps"], labelSelector={"matchLabels": {"app": "web"}})
    assert found["progress"] == {"totalItems": 1, "itemsRestored": 1}
    names = {one["metadata"]["name"] for one in world.registry.iterate("configmaps", "shop")}
    assert names == {"settings", "kube-root-ca.crt"}
    assert pods_of(world, "web", "shop") == []


def test_without_its_volumes_a_restored_claim_is_new_and_empty() -> None:
    world = shop()
    back_up(world)
    world.registry.delete("namespaces", "", "shop")
    world.advance(60)
    assert restore(world, restorePVs=False)["phase"] == "Completed"
    world.advance(60)
    assert world.volume_contents("shop", "data").revision == 0


def test_a_namespace_that_takes_nothing_makes_the_restore_partial() -> None:
    world = shop()
    back_up(world, includedResources=["configmaps"])
    world.faults.inject(FaultSpec("restore-fails", namespace="shop"))
    found = restore(world)
    assert found["phase"] == "PartiallyFailed"
    assert found["errors"] == 3
    assert world.backups.results["again"]["errors"][0].startswith("error restoring configmaps/shop/")


def test_a_restore_from_storage_that_is_away_fails() -> None:
    world = shop()
    back_up(world)
    world.faults.inject(FaultSpec("backup-storage-away"))
    found = restore(world)
    assert found["phase"] == "Failed"
    assert "RequestError" in found["failureReason"]
    world.advance(60)
    refused = restore(world, "later")
    assert refused["validationErrors"] == ["The BSL default is unavailable, cannot retrieve the backup"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"backupName": "nosuch"}, 'backups.velero.io "nosuch" not found'),
        ({"backupName": ""}, "Either a backup or schedule must be specified as a source for the restore, but not both"),
        (
            {"scheduleName": "s"},
            "Either a backup or schedule must be specified as a source for the restore, but not both",
        ),
        ({"backupName": "", "scheduleName": "s"}, "No backups found for schedule"),
        ({"existingResourcePolicy": "replace"}, "Invalid ExistingResourcePolicy: replace"),
        ({"includedResources": ["nodes"]}, "nodes are non-restorable resources"),
    ],
)
def test_a_restore_that_makes_no_sense_fails_validation(spec: dict[str, Any], told: str) -> None:
    world = shop()
    back_up(world, includedResources=["configmaps"])
    found = restore(world, **spec)
    assert found["phase"] == "FailedValidation"
    assert any(one.endswith(told) for one in found["validationErrors"])


# Schedules, deletion, expiry


def test_a_schedule_makes_backups_at_its_times_and_a_restore_takes_the_latest() -> None:
    world = shop()
    template = {"includedNamespaces": ["shop"], "includedResources": ["configmaps"], "ttl": "24h0m0s"}
    world.apply(velero("Schedule", "quarterly", schedule="*/15 * * * *", template=template))
    world.settle()
    assert status(world, SCHEDULES, "quarterly") == {"phase": "Enabled"}
    world.advance(31 * 60)
    names = sorted(one["metadata"]["name"] for one in world.registry.iterate(BACKUPS))
    assert names == ["quarterly-20260302091500", "quarterly-20260302093000"]
    assert {status(world, BACKUPS, name)["phase"] for name in names} == {"Completed"}
    assert status(world, SCHEDULES, "quarterly")["lastBackup"] == "2026-03-02T09:30:00Z"
    latest = world.registry.get(BACKUPS, NAMESPACE, names[1])
    assert latest["metadata"]["labels"]["velero.io/schedule-name"] == "quarterly"
    found = restore(world, backupName="", scheduleName="quarterly")
    assert found["phase"] == "Completed"
    assert world.registry.get(RESTORES, NAMESPACE, "again")["spec"]["backupName"] == names[1]


def test_a_paused_schedule_makes_none_and_a_broken_one_says_so() -> None:
    world = shop()
    world.apply(velero("Schedule", "off", schedule="* * * * *", paused=True, template={}))
    world.apply(velero("Schedule", "broken", schedule="every day", template={}))
    world.advance(300)
    assert list(world.registry.iterate(BACKUPS)) == []
    found = status(world, SCHEDULES, "broken")
    assert found["phase"] == "FailedValidation"
    assert found["validationErrors"][0].startswith("invalid schedule: ")


def test_a_deletion_request_removes_backup_snapshots_and_restores() -> None:
    world = shop()
    back_up(world)
    restore(world, namespaceMapping={"shop": "copy"})
    world.apply(velero("DeleteBackupRequest", "go", backupName="one"))
    world.settle()
    assert status(world, BACKUPS, "one")["phase"] == "Deleting"
    world.advance(5)
    assert status(world, DELETIONS, "go") == {"phase": "Processed"}
    assert world.registry.find(BACKUPS, NAMESPACE, "one") is None
    assert world.registry.find(RESTORES, NAMESPACE, "again") is None
    assert world.backups.get("one") is None
    assert world.disks.snapshots() == {}
    world.advance(25 * 3600)
    assert world.registry.find(DELETIONS, NAMESPACE, "go") is None


def test_a_deletion_that_cannot_be_done_says_why() -> None:
    world = shop()
    world.apply(velero("DeleteBackupRequest", "unknown", backupName="nosuch"))
    world.settle()
    assert status(world, DELETIONS, "unknown") == {"phase": "Processed", "errors": ["backup not found"]}
    world.apply(velero("Backup", "one", includedNamespaces=["shop"]))
    world.settle()
    world.apply(velero("DeleteBackupRequest", "early", backupName="one"))
    world.settle()
    assert status(world, DELETIONS, "early")["errors"] == ["backup is still in progress"]
    assert ended(world, BACKUPS, "one")["phase"] == "Completed"
    world.faults.inject(FaultSpec("backup-storage-away"))
    world.apply(velero("DeleteBackupRequest", "away", backupName="one"))
    world.advance(5)
    assert "RequestError" in status(world, DELETIONS, "away")["errors"][0]
    assert status(world, BACKUPS, "one")["phase"] == "Completed"


def test_expired_backups_are_collected_within_the_hour() -> None:
    world = shop()
    back_up(world, ttl="2h0m0s")
    world.advance(3600)
    assert world.registry.find(BACKUPS, NAMESPACE, "one") is not None
    world.advance(2 * 3600 + 60)
    assert world.registry.find(BACKUPS, NAMESPACE, "one") is None
    assert world.backups.get("one") is None
    requests = list(world.registry.iterate(DELETIONS))
    assert [one["spec"]["backupName"] for one in requests] == ["one"]


def test_a_backup_whose_object_alone_is_deleted_comes_back() -> None:
    world = shop()
    back_up(world)
    world.registry.delete(BACKUPS, NAMESPACE, "one")
    world.advance(61)
    assert status(world, BACKUPS, "one")["phase"] == "Completed"


def test_one_seed_gives_one_backup() -> None:
    sums = set()
    for _ in range(2):
        world = shop()
        back_up(world)
        stored = world.backups.get("one")
        assert stored is not None
        sums.add(stored.checksum())
    assert len(sums) == 1


@pytest.mark.parametrize("kind", ["Backup", "Restore", "Schedule", "DeleteBackupRequest", "BackupStorageLocation"])
def test_an_object_without_a_spec_breaks_nothing(kind: str) -> None:
    world = shop()
    made = velero(kind, "bare")
    del made["spec"]
    world.apply(made)
    world.advance(7200)
    back_up(world, "later")
    phases = {
        "Backup": "Completed",
        "Restore": "FailedValidation",
        "Schedule": "FailedValidation",
        "DeleteBackupRequest": "Processed",
        "BackupStorageLocation": "Available",
    }
    resource = world.objects.kinds.by_kind("velero.io/v1", kind)
    assert resource is not None
    assert status(world, resource.resource, "bare")["phase"] == phases[kind]


def test_what_velero_writes_is_its_own_and_not_the_controllers() -> None:
    world = shop()
    back_up(world, includedResources=["configmaps"])
    backup = world.registry.get(BACKUPS, NAMESPACE, "one")
    entries = [(one["manager"], one.get("subresource")) for one in backup["metadata"]["managedFields"]]
    assert ("velero-server", None) in entries
    world.registry.delete("configmaps", "shop", "settings")
    restore(world)
    made = world.registry.get("configmaps", "shop", "settings")
    assert {one["manager"] for one in made["metadata"]["managedFields"]} == {"velero-server"}


def test_velero_minds_its_own_namespace_only() -> None:
    world = shop()
    stray = velero("Backup", "stray")
    world.apply({**stray, "metadata": {"name": "stray", "namespace": "shop"}})
    world.advance(60)
    assert "status" not in world.registry.get(BACKUPS, "shop", "stray")
    with pytest.raises(ApiError):
        world.registry.get(BACKUPS, NAMESPACE, "stray")
