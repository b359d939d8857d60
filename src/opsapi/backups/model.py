"""What a backup is: of which application, made how, and what it holds."""

from datetime import datetime
from enum import StrEnum

import msgspec

from opsapi.kit.ids import stable_id
from opsapi.operations.model import Failure, Operation

ANNOTATION = "opsapi.dev/backup"
"""On snapshots and Velero's objects: the backup that they belong to. What lacks it is not ours to delete."""
RESTORED_BY = "opsapi.dev/restored-by"
"""On what a restore creates: its operation."""
RESTORED_REPLICAS = "opsapi.dev/replicas-before"
"""On what arrives inert: the replicas that it had."""
INERT_NODE = "opsapi.dev/inert"
"""The node label that an inert DaemonSet waits for, which no node bears."""


class Engine(StrEnum):
    VELERO = "velero"
    """A Velero Backup: Velero selects the objects and keeps them in its own storage."""
    MANIFESTS = "manifests"
    """The objects as JSON with checksums in the configured store, volumes as CSI snapshots."""


class Status(StrEnum):
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    PARTIALLY_FAILED = "partially_failed"
    """Something that it should hold is missing; what it holds can be restored."""
    FAILED = "failed"
    DELETED = "deleted"

    @property
    def restorable(self) -> bool:
        return self in (Status.COMPLETED, Status.PARTIALLY_FAILED)


class BackupType(StrEnum):
    AUTOMATED = "automated"
    MANUAL = "manual"
    SCHEDULED = "scheduled"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The application: `kind` is Deployment, StatefulSet, DaemonSet or CronJob."""

    workspace_id: str
    application_id: str
    kind: str
    namespace: str
    name: str
    uid: str

    @property
    def place(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A CSI VolumeSnapshot. `handle` and `driver` (of its VolumeSnapshotContent) are null where the credentials may not
    read that; then it can be restored in its own namespace alone."""

    name: str
    namespace: str
    uid: str
    handle: str | None = None
    driver: str | None = None
    snapshot_class: str | None = None
    restore_size: str | None = None


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """One PersistentVolumeClaim of the application. `size` is what it requests; `reason` says why it was not
    captured."""

    claim: str
    size: str | None = None
    captured: bool = False
    reason: str | None = None
    snapshot: Snapshot | None = None


class Held(msgspec.Struct, frozen=True, order=True):
    """One object in a backup."""

    kind: str
    name: str


class LeftOut(msgspec.Struct, frozen=True):
    """One object that belongs to the application and is not in its backup. `missed`: it should be, and could not be
    had, so that the backup is partially failed."""

    kind: str
    name: str
    reason: str
    missed: bool = False


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """`location`: below the store's root, or `namespace/name` of Velero's object, whose uid is `velero_uid`.

    `checksum`: SHA-256 of the index (manifests). `size_bytes` is of the manifests; volumes are measured by nobody.
    `volumes_expected` and `volumes_captured` count claims; null where volumes were not asked for. `damage`: what the
    last verification found, at `verified_at`.
    """

    id: str
    workspace_id: str
    application_id: str
    kind: str
    namespace: str
    name: str
    uid: str
    engine: Engine
    status: Status
    backup_type: BackupType
    retention_policy: str
    include_volumes: bool
    reason: str | None
    requested_by: str
    operation_id: str
    location: str
    created_at: datetime
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    velero_uid: str | None = None
    checksum: str | None = None
    size_bytes: int | None = None
    volumes_expected: int | None = None
    volumes_captured: int | None = None
    volumes: list[Volume] = []
    objects: list[Held] = []
    left_out: list[LeftOut] = []
    error: Failure | None = None
    verified_at: datetime | None = None
    damage: list[str] = []

    @property
    def target(self) -> Target:
        return Target(
            workspace_id=self.workspace_id,
            application_id=self.application_id,
            kind=self.kind,
            namespace=self.namespace,
            name=self.name,
            uid=self.uid,
        )


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the making of a backup ended."""

    status: Status
    finished_at: datetime
    expires_at: datetime | None = None
    velero_uid: str | None = None
    checksum: str | None = None
    size_bytes: int | None = None
    volumes_expected: int | None = None
    volumes_captured: int | None = None
    volumes: list[Volume] = []
    objects: list[Held] = []
    left_out: list[LeftOut] = []
    error: Failure | None = None


class BackupOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the steps of one application's backup need. `size_estimate` is bytes, `size_basis` what it rests on."""

    target: Target
    engine: Engine
    backup_type: BackupType
    retention_policy: str
    ttl_seconds: float
    include_volumes: bool
    reason: str | None = None
    channels: tuple[str, ...] = ()
    size_estimate: int | None = None
    size_basis: str | None = None


def backup_id_of(operation_id: str) -> str:
    """The backup that an operation on one application makes: known from the operation alone."""
    return f"backup-{operation_id.removeprefix('op-')}"


def operation_id_of(backup_id: str) -> str:
    """The operation that would make it, were it an operation's only one."""
    return f"op-{backup_id.removeprefix('backup-')}"


def backup_id_among(operation_id: str, target: Target) -> str:
    """One of the backups that an operation on many applications makes."""
    return stable_id("backup", operation_id, target.uid)


def location_of(engine: Engine, backup_id: str, workspace_id: str, velero_namespace: str) -> str:
    if engine is Engine.VELERO:
        return f"{velero_namespace}/opsapi-{backup_id}"
    return f"{workspace_id}/{backup_id}"


def opened(order: BackupOrder, backup_id: str, operation: Operation, location: str) -> Backup:
    """The record of a backup that is being made."""
    target = order.target
    return Backup(
        id=backup_id,
        workspace_id=target.workspace_id,
        application_id=target.application_id,
        kind=target.kind,
        namespace=target.namespace,
        name=target.name,
        uid=target.uid,
        engine=order.engine,
        status=Status.IN_PROGRESS,
        backup_type=order.backup_type,
        retention_policy=order.retention_policy,
        include_volumes=order.include_volumes,
        reason=order.reason,
        requested_by=operation.requested_by,
        operation_id=operation.id,
        location=location,
        created_at=operation.created_at,
    )
