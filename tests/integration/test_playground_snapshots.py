"""Volumes that hold something, CSI snapshots of them, and claims that are restored from one."""

import pytest

from opsapi.playground.faults.world import FaultSpec
from opsapi.playground.registry import Obj
from opsapi.playground.snapshots.controller import CLASSES, CONTENTS, SNAPSHOTS
from opsapi.playground.world import World
from support.playground_world import container, deployment, messages, small_world

CLAIMS = "persistentvolumeclaims"


def claim(name: str, size: str = "1Gi", **spec: object) -> Obj:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": wanted}


def mounting(name: str, claim_name: str) -> Obj:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}
    return deployment(name, container(), replicas=1, pod={"volumes": [volume]})


def snapshot(name: str, claim_name: str = "data", class_name: str | None = None) -> Obj:
    spec: Obj = {"source": {"persistentVolumeClaimName": claim_name}}
    if class_name is not None:
        spec["volumeSnapshotClassName"] = class_name
    head = {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot"}
    return {**head, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def from_snapshot(name: str, source: str, size: str = "1Gi") -> Obj:
    source_of = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": source}
    return claim(name, size, dataSource=source_of)


def world_with_data() -> World:
    world = small_world()
    world.install("snapshots")
    world.apply(claim("data"))
    world.apply(mounting("db", "data"))
    world.advance(30)
    world.write_volume("default", "data", "the orders of Monday")
    return world


def status(world: World, name: str) -> Obj:
    return dict(world.registry.get(SNAPSHOTS, "default", name).get("status") or {})


def test_contents_are_equal_only_after_the_same_writes_in_the_same_order() -> None:
    world = world_with_data()
    first = world.volume_contents("default", "data")
    assert first.revision == 1
    second = world.write_volume("default", "data", "the orders of Tuesday")
    assert second.revision == 2
    assert second.checksum not in ("", first.checksum)
    assert world.disks.write("other", "the orders of Tuesday").checksum != second.checksum
    assert world.disks.write("other", "the orders of Monday").checksum != second.checksum
    with pytest.raises(KeyError):
        world.volume_contents("default", "nosuch")


def test_a_snapshot_is_bound_at_once_and_ready_a_moment_later() -> None:
    world = world_with_data()
    world.apply(snapshot("monday"))
    world.settle()
    found = world.registry.get(SNAPSHOTS, "default", "monday")
    name = f"snapcontent-{found['metadata']['uid']}"
    assert found["status"] == {
        "boundVolumeSnapshotContentName": name,
        "creationTime": "2026-03-02T09:00:30Z",
        "readyToUse": False,
        "restoreSize": "1Gi",
    }
    assert found["spec"]["volumeSnapshotClassName"] == "standard"
    held = world.registry.get(CLAIMS, "default", "data")["metadata"]["finalizers"]
    assert "snapshot.storage.kubernetes.io/pvc-as-source-protection" in held
    world.advance(5)
    assert status(world, "monday")["readyToUse"] is True
    content = world.registry.get(CONTENTS, "", name)
    handle = world.volume_handle("default", "data")
    assert content["spec"]["source"] == {"volumeHandle": handle}
    assert content["spec"]["volumeSnapshotRef"]["uid"] == found["metadata"]["uid"]
    assert content["status"]["restoreSize"] == 1 << 30
    assert content["status"]["creationTime"] == 1772442030 * 10**9
    assert messages(world, "SnapshotReady") == ["Snapshot default/monday is ready to use."]
    kept = world.registry.get(CLAIMS, "default", "data")["metadata"]["finalizers"]
    assert kept == ["kubernetes.io/pvc-protection"]


def test_a_restored_claim_holds_what_the_snapshot_held_and_not_what_came_after() -> None:
    world = world_with_data()
    before = world.volume_contents("default", "data")
    world.apply(snapshot("monday"))
    world.advance(5)
    world.write_volume("default", "data", "a mistake")
    world.apply(from_snapshot("restored", "monday"))
    world.apply(mounting("copy", "restored"))
    world.advance(30)
    assert world.registry.get(CLAIMS, "default", "restored")["status"]["phase"] == "Bound"
    assert world.volume_contents("default", "restored") == before
    assert world.volume_contents("default", "data").revision == 2
    world.write_volume("default", "restored", "its own")
    assert world.volume_contents("default", "data").revision == 2


def test_a_source_named_by_reference_counts_like_one_named_directly() -> None:
    world = world_with_data()
    world.apply(snapshot("monday"))
    world.advance(5)
    source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "monday"}
    world.apply(claim("restored", dataSourceRef=source))
    assert world.registry.get(CLAIMS, "default", "restored")["spec"]["dataSource"] == source
    world.apply(mounting("copy", "restored"))
    world.advance(30)
    assert world.volume_contents("default", "restored") == world.volume_contents("default", "data")


def test_a_claim_of_another_claim_is_its_copy() -> None:
    world = world_with_data()
    world.apply(claim("twin", dataSource={"kind": "PersistentVolumeClaim", "name": "data"}))
    world.apply(mounting("copy", "twin"))
    world.advance(30)
    assert world.volume_contents("default", "twin") == world.volume_contents("default", "data")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (
            snapshot("bad", class_name="nosuch"),
            'Failed to get snapshot class with error volumesnapshotclass.snapshot.storage.k8s.io "nosuch" not found',
        ),
        (
            snapshot("bad", "nosuch", "standard"),
            "Failed to create snapshot content with error snapshot controller failed to update bad on API server: "
            "cannot get claim from snapshot",
        ),
        (
            snapshot("bad", "nosuch"),
            "Failed to set default snapshot class with error failed to retrieve PVC nosuch from the lister: "
            '"persistentvolumeclaim \\"nosuch\\" not found"',
        ),
        (
            snapshot("bad", "unbound", "standard"),
            "Failed to create snapshot content with error failed to get input parameters to create snapshot bad: "
            '"the PVC unbound is not yet bound to a PV, will not attempt to take a snapshot"',
        ),
    ],
    ids=["missing class", "missing claim", "missing claim, default class", "unbound claim"],
)
def test_a_snapshot_that_cannot_be_taken_says_why_in_its_status(made: Obj, told: str) -> None:
    world = world_with_data()
    world.apply(claim("unbound"))
    world.apply(made)
    world.advance(5)
    error = status(world, "bad")["error"]
    assert error["message"] == told
    assert error["time"] == "2026-03-02T09:00:30Z"
    assert not status(world, "bad").get("readyToUse")
    assert list(world.registry.iterate(CONTENTS)) == []
    world.advance(60)
    assert status(world, "bad")["error"] == error


def test_a_snapshot_waits_for_its_class_and_is_taken_once_that_comes() -> None:
    world = world_with_data()
    world.apply(snapshot("late", class_name="slow"))
    world.advance(5)
    assert "error" in status(world, "late")
    standard = world.registry.get(CLASSES, "", "standard")
    world.apply({**standard, "metadata": {"name": "slow"}})
    world.advance(5)
    assert status(world, "late")["readyToUse"] is True
    assert "error" not in status(world, "late")


def test_a_storage_system_that_cannot_take_snapshots_shows_in_content_and_snapshot() -> None:
    world = world_with_data()
    fault = world.faults.inject(FaultSpec("snapshot-fails", namespace="default", claim="data"))
    world.apply(snapshot("monday"))
    world.advance(10)
    told = status(world, "monday")["error"]["message"]
    assert told.startswith("Failed to check and update snapshot content: failed to take snapshot of the volume pvc-")
    content = world.registry.get(CONTENTS, "", status(world, "monday")["boundVolumeSnapshotContentName"])
    assert content["status"]["error"]["message"] == told
    assert status(world, "monday")["readyToUse"] is False
    world.faults.clear(fault.id)
    world.advance(30)
    assert status(world, "monday")["readyToUse"] is True


def test_a_claim_from_a_snapshot_that_is_missing_or_too_large_stays_pending_with_the_provisioners_words() -> None:
    world = world_with_data()
    world.apply(snapshot("monday"))
    world.advance(5)
    world.apply(from_snapshot("small", "monday", "500Mi"))
    world.apply(from_snapshot("orphan", "nosuch"))
    for name in ("small", "orphan"):
        world.apply(mounting(name, name))
    world.advance(30)
    head = 'failed to provision volume with StorageClass "standard": error getting handle for DataSource Type '
    assert set(messages(world, "ProvisioningFailed")) == {
        head + "VolumeSnapshot by Name monday: requested volume size 524288000 is less than the size 1073741824 "
        "for the source snapshot monday",
        head + "VolumeSnapshot by Name nosuch: error getting snapshot nosuch from api server: "
        'volumesnapshots.snapshot.storage.k8s.io "nosuch" not found',
    }
    assert world.registry.get(CLAIMS, "default", "small")["status"]["phase"] == "Pending"


def test_deleting_a_snapshot_takes_its_content_and_the_drivers_snapshot_along_unless_they_are_to_stay() -> None:
    world = world_with_data()
    world.apply(snapshot("monday"))
    world.advance(5)
    assert len(world.disks.snapshots()) == 1
    world.registry.delete(SNAPSHOTS, "default", "monday")
    world.settle()
    assert list(world.registry.iterate(SNAPSHOTS)) == []
    assert list(world.registry.iterate(CONTENTS)) == []
    assert world.disks.snapshots() == {}

    world.apply(snapshot("tuesday"))
    world.advance(5)
    content = next(iter(world.registry.iterate(CONTENTS)))
    retained = {**content, "spec": {**content["spec"], "deletionPolicy": "Retain"}}
    world.registry.update(CONTENTS, "", content["metadata"]["name"], retained)
    world.registry.delete(SNAPSHOTS, "default", "tuesday")
    world.settle()
    assert len(list(world.registry.iterate(CONTENTS))) == 1
    assert len(world.disks.snapshots()) == 1


def test_a_snapshot_of_a_content_made_by_hand_is_ready_where_the_driver_knows_the_handle() -> None:
    world = world_with_data()
    before = world.volume_contents("default", "data")
    world.disks.take("kept-elsewhere", world.volume_handle("default", "data"), 1 << 30, 0.0)
    world.write_volume("default", "data", "later")
    for name, handle in (("known", "kept-elsewhere"), ("unknown", "nosuch")):
        world.apply(
            {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshotContent",
                "metadata": {"name": f"content-{name}"},
                "spec": {
                    "deletionPolicy": "Retain",
                    "driver": "csi.playground.opsapi.dev",
                    "source": {"snapshotHandle": handle},
                    "volumeSnapshotRef": {"name": name, "namespace": "default"},
                },
            }
        )
        made = snapshot(name)
        world.apply({**made, "spec": {"source": {"volumeSnapshotContentName": f"content-{name}"}}})
    world.advance(5)
    assert status(world, "known")["readyToUse"] is True
    assert "NotFound" in status(world, "unknown")["error"]["message"]
    world.apply(from_snapshot("restored", "known"))
    world.apply(mounting("copy", "restored"))
    world.advance(30)
    assert world.volume_contents("default", "restored") == before


def test_a_volume_takes_its_contents_along_when_it_is_deleted() -> None:
    world = world_with_data()
    handle = world.volume_handle("default", "data")
    world.registry.delete("deployments.apps", "default", "db")
    world.advance(60)
    world.registry.delete(CLAIMS, "default", "data")
    world.advance(10)
    assert list(world.registry.iterate("persistentvolumes")) == []
    assert world.disks.contents(handle).revision == 0


def test_without_the_kinds_nothing_is_there_and_nothing_breaks() -> None:
    world = small_world()
    assert not world.objects.kinds.knows(SNAPSHOTS)
    world.apply(from_snapshot("restored", "monday"))
    world.apply(mounting("copy", "restored"))
    world.advance(30)
    assert world.registry.get(CLAIMS, "default", "restored")["status"]["phase"] == "Pending"
