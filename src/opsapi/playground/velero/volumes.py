"""The snapshots that a backup takes of claims, and the claims that a restore makes from them."""

from opsapi.playground.controllers import pods
from opsapi.playground.registry import Obj
from opsapi.playground.snapshots.controller import CLASSES, CONTENTS, SNAPSHOTS
from opsapi.playground.snapshots.objects import quantity_of
from opsapi.playground.velero.server import Server
from opsapi.playground.velero.storage import BACKUP_NAME, RESTORE_NAME, Item, VolumeSnapshotRecord

CLASS_LABEL = "velero.io/csi-volumesnapshot-class"
_API = "snapshot.storage.k8s.io/v1"
_BINDING_ANNOTATIONS = (
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
)


class SnapshotError(Exception):
    """No snapshot of this claim can be taken."""


def driver_of(server: Server, claim: Obj) -> str:
    """The CSI driver of the claim's volume; empty where it has none."""
    volume = server.objects.find("persistentvolumes", "", claim["spec"].get("volumeName", ""))
    return "" if volume is None else str((volume["spec"].get("csi") or {}).get("driver", ""))


def class_for(server: Server, driver: str) -> str:
    """The class that is labelled for Velero, or the only one of the driver. Raises SnapshotError."""
    found = [one for one in server.objects.iterate(CLASSES) if one["driver"] == driver]
    labelled = [one for one in found if CLASS_LABEL in (one["metadata"].get("labels") or {})]
    for one in labelled or (found if len(found) == 1 else []):
        return str(one["metadata"]["name"])
    raise SnapshotError(
        f"error getting volumesnapshotclass: failed to get volumesnapshotclass for provisioner {driver}, "
        f"ensure that the desired volumesnapshot class has the {CLASS_LABEL} label"
    )


def take(server: Server, backup: str, claim: Obj) -> Obj:
    """A VolumeSnapshot of the claim. Raises SnapshotError."""
    meta = claim["metadata"]
    made = {
        "apiVersion": _API,
        "kind": "VolumeSnapshot",
        "metadata": {
            "name": f"velero-{meta['name']}-{pods.suffix(server.cluster.rng)}",
            "namespace": meta["namespace"],
            "labels": {BACKUP_NAME: backup},
        },
        "spec": {
            "source": {"persistentVolumeClaimName": meta["name"]},
            "volumeSnapshotClassName": class_for(server, driver_of(server, claim)),
        },
    }
    return server.create(SNAPSHOTS, meta["namespace"], made)


def keep(server: Server, snapshot: Obj) -> VolumeSnapshotRecord:
    """Takes the objects of a ready snapshot out of the cluster and leaves the driver's snapshot where it is."""
    meta = snapshot["metadata"]
    name = snapshot["status"]["boundVolumeSnapshotContentName"]
    content = server.objects.get(CONTENTS, "", name)
    retained = {**content, "spec": {**content["spec"], "deletionPolicy": "Retain"}}
    content = server.update(CONTENTS, retained)
    server.objects.delete(SNAPSHOTS, meta["namespace"], meta["name"])
    server.objects.delete(CONTENTS, "", name)
    status, spec = content["status"], content["spec"]
    return VolumeSnapshotRecord(
        meta["namespace"],
        snapshot["spec"]["source"]["persistentVolumeClaimName"],
        status["snapshotHandle"],
        spec["driver"],
        spec["volumeSnapshotClassName"],
        int(status["restoreSize"]),
    )


def unbound(claim: Obj) -> Obj:
    """A claim as a user would write it: not bound to anything yet."""
    meta, spec = claim["metadata"], dict(claim["spec"])
    annotations = {key: one for key, one in (meta.get("annotations") or {}).items() if key not in _BINDING_ANNOTATIONS}
    for name in ("volumeName", "dataSource", "dataSourceRef"):
        spec.pop(name, None)
    return {**claim, "metadata": {**meta, "annotations": annotations}, "spec": spec}


def from_snapshot(server: Server, restore: Obj, claim: Obj, namespace: str, record: VolumeSnapshotRecord) -> Obj:
    """The claim with the snapshot as its source; makes the snapshot's objects in `namespace`."""
    meta = restore["metadata"]
    name = f"{claim['metadata']['name']}-{meta['uid'][:8]}"
    labels = {RESTORE_NAME: meta["name"], BACKUP_NAME: restore["spec"]["backupName"]}
    content_name = f"velero-{namespace}-{name}"
    ref = {"apiVersion": _API, "kind": "VolumeSnapshot", "name": name, "namespace": namespace}
    content = {
        "apiVersion": _API,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": content_name, "labels": labels},
        "spec": {
            "deletionPolicy": "Retain",
            "driver": record.driver,
            "source": {"snapshotHandle": record.handle},
            "volumeSnapshotClassName": record.snapshot_class,
            "volumeSnapshotRef": ref,
        },
    }
    snapshot = {
        "apiVersion": _API,
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "source": {"volumeSnapshotContentName": content_name},
            "volumeSnapshotClassName": record.snapshot_class,
        },
    }
    server.create(CONTENTS, "", content)
    server.create(SNAPSHOTS, namespace, snapshot)
    source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name}
    spec = {**claim["spec"], "dataSource": source}
    spec["resources"] = {**spec["resources"], "requests": {"storage": quantity_of(record.size)}}
    return {**claim, "spec": spec}


def claims_to_snapshot(server: Server, items: tuple[Item, ...]) -> list[Obj]:
    """The bound claims on CSI volumes; none where snapshots are not served."""
    if not server.objects.kinds.knows(SNAPSHOTS):
        return []
    claims = [item.obj for item in items if item.resource == "persistentvolumeclaims"]
    return [one for one in claims if (one.get("status") or {}).get("phase") == "Bound" and driver_of(server, one)]
