"""What lies in the backup storage: the objects' manifests as they were, and the snapshots that belong to them."""

import hashlib
from dataclasses import dataclass, field

import msgspec

from opsapi.playground.registry import Obj

NAMESPACE = "velero"
BACKUPS = "backups.velero.io"
RESTORES = "restores.velero.io"
SCHEDULES = "schedules.velero.io"
LOCATIONS = "backupstoragelocations.velero.io"
DELETIONS = "deletebackuprequests.velero.io"
BACKUP_NAME = "velero.io/backup-name"
BACKUP_UID = "velero.io/backup-uid"
RESTORE_NAME = "velero.io/restore-name"
SCHEDULE_NAME = "velero.io/schedule-name"
LOCATION_NAME = "velero.io/storage-location"


def with_spec(obj: Obj) -> Obj:
    """The object with a spec: Velero's definitions do not insist on one."""
    return obj if obj.get("spec") else {**obj, "spec": {}}


@dataclass(frozen=True, slots=True)
class Item:
    """One object, whole, as it stood when the backup came by. `resource` as the Registry names it."""

    resource: str
    namespace: str
    name: str
    obj: Obj

    @property
    def label(self) -> str:
        """`deployments.apps/shop/web`"""
        return "/".join(part for part in (self.resource, self.namespace, self.name) if part)


@dataclass(frozen=True, slots=True)
class VolumeSnapshotRecord:
    """A snapshot that the driver keeps for a backup; `size` in bytes."""

    namespace: str
    claim: str
    handle: str
    driver: str
    snapshot_class: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """`backup` is the Backup object in its last state."""

    backup: Obj
    location: str
    items: tuple[Item, ...]
    snapshots: tuple[VolumeSnapshotRecord, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.backup["metadata"]["name"])

    def checksum(self) -> str:
        """SHA-256 (hex) of all manifests in their order."""
        digest = hashlib.sha256()
        encode = msgspec.json.Encoder(order="sorted").encode
        for item in self.items:
            digest.update(encode(item.obj) + b"\n")
        return digest.hexdigest()

    def snapshot_of(self, namespace: str, claim: str) -> VolumeSnapshotRecord | None:
        return next((one for one in self.snapshots if (one.namespace, one.claim) == (namespace, claim)), None)


@dataclass(slots=True)
class BackupStorage:
    """All locations together; a backup's name is unique across them, as its object's is."""

    _held: dict[str, StoredBackup] = field(default_factory=dict)
    results: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Restore -> its `warnings` and `errors`, which Velero keeps in a file beside the backup."""

    def put(self, stored: StoredBackup) -> None:
        self._held[stored.name] = stored

    def get(self, name: str) -> StoredBackup | None:
        return self._held.get(name)

    def delete(self, name: str) -> None:
        self._held.pop(name, None)

    def in_location(self, location: str) -> list[StoredBackup]:
        return [one for one in self._held.values() if one.location == location]
