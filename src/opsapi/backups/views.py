"""What callers are shown of backups."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from opsapi.backups.model import Backup, BackupType, Engine, Held, LeftOut, Status, Volume
from opsapi.kit.endpoint import Body, Params, Partial
from opsapi.kit.quantity import format_bytes
from opsapi.operations.desk import PlanHash, PlannedStep, PlanRefusal
from opsapi.operations.model import Failure

Text = Annotated[str, Meta(max_length=500)]
Name = Annotated[str, Meta(min_length=1, max_length=253)]
Channel = Annotated[str, Meta(min_length=1, max_length=200)]


class ApplicationParams(Params, frozen=True, kw_only=True):
    application_id: Name


class BackupParams(Params, frozen=True, kw_only=True):
    backup_id: Name


class BackupsParams(Params, frozen=True, kw_only=True):
    """Filters; all that are given must hold. What is deleted is only listed with `status=deleted`."""

    workspace: Name | None = None
    application: Name | None = None
    status: Status | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: str | None = None


class BackupBody(Body, frozen=True, kw_only=True):
    """`retention_policy` is one of the configuration's `backups.retention`. `include_volumes: false` takes manifests
    alone. `plan_hash` is of a dry run: exactly that plan is carried out, or `STALE_PLAN` answered."""

    backup_type: BackupType = BackupType.AUTOMATED
    reason: Text | None = None
    retention_policy: Annotated[str, Meta(min_length=1, max_length=40)] = "standard"
    include_volumes: bool = True
    notification_channels: Annotated[list[Channel], Meta(max_length=20)] = msgspec.field(default_factory=list)
    confirmation_required: bool = False
    dry_run: bool = False
    plan_hash: PlanHash | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed` is false where `refusals` is not empty; `needs_approval` names the rules for which a person decides
    first. `details` are what would be taken or created, and what not. `plan_hash` may be sent with the call until
    `plan_expires_at`."""

    allowed: bool
    refusals: list[PlanRefusal]
    needs_approval: list[str]
    steps: list[PlannedStep]
    details: dict[str, Any]
    plan_hash: str
    plan_expires_at: datetime


class BackupAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: `started` (202), `pending_approval` (202, a person decides) or `planned` (dry run).

    `backup_size_estimate` is a quantity, and `backup_size_basis` what it rests on: `pvc_requests` (what the claims
    request, so an upper bound) or `last_backup` (the size of the last complete one). Null where nothing is known.
    """

    backup_id: str | None
    application_id: str
    status: str
    started_at: datetime | None
    estimated_completion: datetime | None
    backup_size_estimate: str | None
    backup_size_basis: str | UnsetType | None = UNSET
    engine: Engine | UnsetType = UNSET
    operation_id: str | UnsetType = UNSET
    plan: Plan | UnsetType = UNSET


class OperationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Of a verification or a deletion: `status` is `started`, or `pending_approval`, or `planned`."""

    backup_id: str
    status: str
    operation_id: str | None
    started_at: datetime | None
    estimated_completion: datetime | None
    plan: Plan | UnsetType = UNSET


class DeleteParams(Params, frozen=True, kw_only=True):
    """A DELETE has no body, so what other calls send in it stands in the query."""

    backup_id: Name
    reason: Text | None = None
    dry_run: bool = False
    plan_hash: PlanHash | None = None


class VerifyBody(Body, frozen=True, kw_only=True):
    reason: Text | None = None
    dry_run: bool = False
    plan_hash: PlanHash | None = None


class BackupView(msgspec.Struct, frozen=True, kw_only=True):
    """`size` and `volumes_*` are null where they are not known or not asked for; `intact` is what the last verification
    found (null before there was one), `damage` where it was not."""

    backup_id: str
    workspace_id: str
    application_id: str
    application: str
    namespace: str
    status: Status
    engine: Engine
    backup_type: BackupType
    retention_policy: str
    reason: str | None
    requested_by: str
    operation_id: str
    started_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None
    size: str | None
    size_bytes: int | None
    objects: int | None
    include_volumes: bool
    volumes_expected: int | None
    volumes_captured: int | None
    verified_at: datetime | None
    intact: bool | None
    error: Failure | None


class BackupDetails(BackupView, frozen=True, kw_only=True):
    """`contents` are the objects that it holds, `left_out` those that belong to the application and are not in it."""

    location: str
    contents: list[Held]
    volumes: list[Volume]
    left_out: list[LeftOut]
    damage: list[str]


class BackupList(msgspec.Struct, frozen=True, kw_only=True):
    backups: list[BackupView]


def summary(backup: Backup) -> BackupView:
    return BackupView(**_shown(backup))


def details(backup: Backup) -> BackupDetails:
    more = {
        "location": backup.location,
        "contents": backup.objects,
        "volumes": backup.volumes,
        "left_out": backup.left_out,
        "damage": backup.damage,
    }
    return BackupDetails(**(_shown(backup) | more))


def _shown(backup: Backup) -> dict[str, Any]:
    done = backup.status in (Status.COMPLETED, Status.PARTIALLY_FAILED)
    return {
        "backup_id": backup.id,
        "workspace_id": backup.workspace_id,
        "application_id": backup.application_id,
        "application": f"{backup.kind}/{backup.name}",
        "namespace": backup.namespace,
        "status": backup.status,
        "engine": backup.engine,
        "backup_type": backup.backup_type,
        "retention_policy": backup.retention_policy,
        "reason": backup.reason,
        "requested_by": backup.requested_by,
        "operation_id": backup.operation_id,
        "started_at": backup.created_at.replace(microsecond=0),
        "finished_at": _seconds(backup.finished_at),
        "expires_at": _seconds(backup.expires_at),
        "size": None if backup.size_bytes is None else format_bytes(backup.size_bytes),
        "size_bytes": backup.size_bytes,
        "objects": len(backup.objects) if done else None,
        "include_volumes": backup.include_volumes,
        "volumes_expected": backup.volumes_expected,
        "volumes_captured": backup.volumes_captured,
        "verified_at": _seconds(backup.verified_at),
        "intact": None if backup.verified_at is None else not backup.damage,
        "error": backup.error,
    }


def unobserved(backup: Backup, at: str = "") -> list[Partial]:
    """Why fields are null."""
    found = []
    busy = backup.status is Status.IN_PROGRESS
    if backup.finished_at is None:
        found.append(Partial(f"{at}finished_at", "it is being made" if busy else "nobody saw it end"))
    if backup.expires_at is None:
        found.append(Partial(f"{at}expires_at", "it is being made" if busy else "there is nothing to keep"))
    if backup.size_bytes is None:
        reason = "it is being made" if busy else "Velero tells no sizes" if backup.engine is Engine.VELERO else "none"
        found += [Partial(f"{at}size", reason), Partial(f"{at}size_bytes", reason)]
    if backup.volumes_expected is None:
        reason = "it is being made" if busy else "volumes were not asked for, or it failed before"
        found += [Partial(f"{at}volumes_expected", reason), Partial(f"{at}volumes_captured", reason)]
    if backup.verified_at is None:
        found += [Partial(f"{at}verified_at", "it was not verified yet"), Partial(f"{at}intact", "not verified yet")]
    return found


def untrusted(backup: Backup, at: str, *, whole: bool = False) -> list[str]:
    """Text of callers, and of the storage drivers."""
    found = [f"{at}/reason"] if backup.reason is not None else []
    if backup.error is not None:
        found.append(f"{at}/error/message")
    if whole:
        found += [f"{at}/volumes/{i}/reason" for i, one in enumerate(backup.volumes) if one.reason is not None]
    return found


def _seconds(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(microsecond=0)
