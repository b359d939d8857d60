"""The objects that snapshots are made of."""

from datetime import UTC, datetime, timedelta

from opsapi.playground.registry import Obj
from opsapi.playground.snapshots.finalizers import CONTENT_BOUND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def handle_of(volume: Obj) -> tuple[str, str]:
    """(driver, volume handle) of a PersistentVolume of a CSI driver."""
    csi = volume["spec"]["csi"]
    return str(csi["driver"]), str(csi["volumeHandle"])


def content_of(name: str, snapshot: Obj, snapshot_class: Obj, volume: Obj) -> Obj:
    """The VolumeSnapshotContent of a snapshot that is taken of a claim."""
    meta = snapshot["metadata"]
    driver, handle = handle_of(volume)
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": name, "finalizers": [CONTENT_BOUND]},
        "spec": {
            "deletionPolicy": snapshot_class["deletionPolicy"],
            "driver": driver,
            "source": {"volumeHandle": handle},
            "sourceVolumeMode": volume["spec"].get("volumeMode", "Filesystem"),
            "volumeSnapshotClassName": snapshot_class["metadata"]["name"],
            "volumeSnapshotRef": {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshot",
                "name": meta["name"],
                "namespace": meta["namespace"],
                "resourceVersion": meta["resourceVersion"],
                "uid": meta["uid"],
            },
        },
    }


def ready_status(handle: str, size: int, taken_at: datetime, *, ready: bool) -> Obj:
    """A content's status; creationTime in nanoseconds since 1970, sizes in bytes."""
    return {
        "creationTime": (taken_at - _EPOCH) // timedelta(microseconds=1) * 1000,
        "readyToUse": ready,
        "restoreSize": size,
        "snapshotHandle": handle,
    }


def moment_of(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def quantity_of(size: int) -> str:
    """Bytes in the largest binary unit that needs no fraction."""
    for power, unit in ((40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return str(size)
