"""Backups as they are: the list, one, its verification and its deletion."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.backups.backup_endpoint import NOTHING_STARTED, plan_of
from opsapi.backups.backup_steps import ACTION
from opsapi.backups.errors import BackupNotFound
from opsapi.backups.model import Backup, BackupOrder, Status, backup_id_of, location_of, opened, operation_id_of
from opsapi.backups.ports import BackupFilter, BackupRecords
from opsapi.backups.upkeep import Upkeep
from opsapi.backups.views import (
    BackupDetails,
    BackupList,
    BackupParams,
    BackupsParams,
    DeleteParams,
    OperationAnswer,
    VerifyBody,
    details,
    summary,
    unobserved,
    untrusted,
)
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import (
    OPERATION_READS,
    OTHER,
    Idempotency,
    NoBody,
    Partial,
    Reply,
    Scope,
    endpoint,
)
from opsapi.kit.errors import DependencyUnavailable, InvalidState, PolicyDenied, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.operations.desk import Desk, started
from opsapi.operations.errors import OperationInProgress, StalePlan
from opsapi.operations.model import Operation
from opsapi.operations.ports import Ledger
from opsapi.operations.proposal import Proposal
from opsapi.policy.model import Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters

_TAG = "Backups"
_BACKUP = "/internal/v1/backups/{backup_id}"
_LONGEST_ID = 80


class _Position(msgspec.Struct, frozen=True):
    created_at: Annotated[datetime, Meta(tz=True)]
    id: str


class BackupReader:
    """Finds backups for a caller: of the workspaces in which they hold a permission, the others in the same words as
    what does not exist."""

    def __init__(self, records: BackupRecords, ledger: Ledger, velero_namespace: str) -> None:
        self.records = records
        self._ledger = ledger
        self._velero_namespace = velero_namespace

    async def find(self, call: Call, backup_id: str, permission: Permission) -> Backup:
        """Raises BackupNotFound, InsufficientInternalPermissions where it may be read but not `permission` used."""
        backup = await self._held(backup_id) if len(backup_id) <= _LONGEST_ID else None
        grants = call.caller.grants
        if backup is None or not grants.allows(Permission.APPLICATION_READ, backup.workspace_id):
            raise BackupNotFound(backup_id)
        call.audit.workspace_id = backup.workspace_id
        call.audit.resource = f"backup/{backup.id}"
        if not grants.allows(permission, backup.workspace_id):
            raise InsufficientInternalPermissions(permission, grants)
        return backup

    async def _held(self, backup_id: str) -> Backup | None:
        """Also one whose operation has been begun and has not written its record yet."""
        backup = await self.records.get(backup_id)
        if backup is not None:
            return backup
        operation = await self._ledger.get(operation_id_of(backup_id))
        if operation is None or operation.action != ACTION or backup_id_of(operation.id) != backup_id:
            return None
        order = msgspec.convert(operation.parameters, BackupOrder)
        location = location_of(order.engine, backup_id, order.target.workspace_id, self._velero_namespace)
        backup = opened(order, backup_id, operation, location)
        if operation.state.final:
            ended = {"status": Status.FAILED, "finished_at": operation.finished_at, "error": operation.error}
            backup = msgspec.structs.replace(backup, **ended)
        return backup


class BackupReadEndpoints:
    def __init__(self, reader: BackupReader, upkeep: Upkeep, clusters: Clusters, desk: Desk, clock: Clock) -> None:
        self._reader = reader
        self._upkeep = upkeep
        self._clusters = clusters
        self._desk = desk
        self._clock = clock

    @endpoint(
        "GET",
        "/internal/v1/backups",
        permission=Permission.APPLICATION_READ,
        scope=Scope.SYSTEM,
        limit=OPERATION_READS,
        idempotency=Idempotency.SAFE,
        summary="List backups",
        tag=_TAG,
        answer=BackupList,
        errors=(ValidationFailed, DependencyUnavailable),
        fields=True,
    )
    async def list_backups(self, call: Call, params: BackupsParams, _body: NoBody) -> Reply[BackupList]:
        """The newest first, of the workspaces in which the account may read applications. A backup stands in the list
        once its operation has begun to make it."""
        purpose = f"backups {params.workspace} {params.application} {params.status}"
        before = None
        if params.cursor is not None:
            position = decode_cursor(purpose, params.cursor, _Position)
            before = (position.created_at, position.id)
        workspaces = call.caller.grants.workspaces(Permission.APPLICATION_READ)
        if params.workspace is not None:
            shown = workspaces is None or params.workspace in workspaces
            workspaces = frozenset({params.workspace}) if shown else frozenset()
        wanted = BackupFilter(
            workspaces=workspaces,
            application_id=params.application,
            status=params.status,
            before=before,
            limit=params.limit + 1,
        )
        found = await self._reader.records.find(wanted)
        page, more = found[: params.limit], len(found) > params.limit
        reasons = {(one.field, one.reason): one for backup in page for one in unobserved(backup, "backups[].")}
        return Reply(
            BackupList(backups=[summary(backup) for backup in page]),
            truncated=more,
            partial=list(reasons.values()),
            untrusted=[place for i, backup in enumerate(page) for place in untrusted(backup, f"/backups/{i}")],
            next_cursor=encode_cursor(purpose, _Position(page[-1].created_at, page[-1].id)) if more else None,
        )

    @endpoint(
        "GET",
        _BACKUP,
        permission=Permission.APPLICATION_READ,
        scope=Scope.SYSTEM,
        limit=OPERATION_READS,
        idempotency=Idempotency.SAFE,
        summary="Get a backup",
        tag=_TAG,
        answer=BackupDetails,
        errors=(ValidationFailed, BackupNotFound, DependencyUnavailable),
        fields=True,
    )
    async def get_backup(self, call: Call, params: BackupParams, _body: NoBody) -> Reply[BackupDetails]:
        """One backup: what it holds, what was left out, its volumes, and what its last verification found."""
        backup = await self._reader.find(call, params.backup_id, Permission.APPLICATION_READ)
        return Reply(details(backup), partial=unobserved(backup), untrusted=untrusted(backup, "", whole=True))

    @endpoint(
        "POST",
        f"{_BACKUP}/verify",
        permission=Permission.APPLICATION_WRITE,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Verify a backup",
        tag=_TAG,
        answer=OperationAnswer,
        success=(202, 200),
        errors=(
            ValidationFailed,
            InsufficientInternalPermissions,
            BackupNotFound,
            InvalidState,
            PolicyDenied,
            OperationInProgress,
            StalePlan,
            DependencyUnavailable,
        ),
        dry_run=True,
    )
    async def verify_backup(self, call: Call, params: BackupParams, body: VerifyBody) -> Reply[OperationAnswer]:
        """Reads everything again and holds it against the checksums, as an operation that changes nothing; of Velero
        its object and its volumes are asked. Damage fails the operation with `BACKUP_DAMAGED` and stands in the
        backup's `damage`."""
        earlier = await self._desk.earlier(call) if not body.dry_run else None
        if earlier is not None:
            return _begun(earlier)
        backup = await self._reader.find(call, params.backup_id, Permission.APPLICATION_WRITE)
        call.audit.reason = reason = one_line(body.reason)
        cluster, subject = self._ground(call, backup)
        proposal = self._upkeep.propose_verification(cluster, backup, subject, reason)
        return await self._answer(call, backup, proposal, dry_run=body.dry_run, plan_hash=body.plan_hash)

    @endpoint(
        "DELETE",
        _BACKUP,
        permission=Permission.WORKSPACE_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Delete a backup",
        tag=_TAG,
        answer=OperationAnswer,
        success=(202, 200),
        errors=(
            ValidationFailed,
            InsufficientInternalPermissions,
            BackupNotFound,
            InvalidState,
            PolicyDenied,
            OperationInProgress,
            StalePlan,
            DependencyUnavailable,
        ),
        dry_run=True,
    )
    async def delete_backup(self, call: Call, params: DeleteParams, _body: NoBody) -> Reply[OperationAnswer]:
        """Deletes manifests and snapshots, or has Velero delete what it holds, as an operation. Policy may ask a person
        first. It cannot be undone."""
        earlier = await self._desk.earlier(call) if not params.dry_run else None
        if earlier is not None:
            return _begun(earlier)
        backup = await self._reader.find(call, params.backup_id, Permission.WORKSPACE_ADMIN)
        call.audit.reason = reason = one_line(params.reason)
        cluster, subject = self._ground(call, backup)
        proposal = self._upkeep.propose_deletion(cluster, backup, subject, reason)
        return await self._answer(call, backup, proposal, dry_run=params.dry_run, plan_hash=params.plan_hash)

    def _ground(self, call: Call, backup: Backup) -> tuple[Cluster, Subject]:
        cluster = self._clusters.find(backup.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(backup.workspace_id)
        caller = call.caller
        return cluster, Subject(caller.account_id, caller.kind, backup.workspace_id, cluster.workspace.mode)

    async def _answer(
        self, call: Call, backup: Backup, proposal: Proposal, *, dry_run: bool, plan_hash: str | None
    ) -> Reply[OperationAnswer]:
        if not dry_run:
            return _begun(await self._desk.begin(call, proposal, given_hash=plan_hash))
        rehearsal = await self._desk.rehearse(call, proposal)
        answer = OperationAnswer(
            backup_id=backup.id,
            status="planned",
            operation_id=None,
            started_at=None,
            estimated_completion=None,
            plan=plan_of(proposal, rehearsal),
        )
        fields = ("operation_id", "started_at", "estimated_completion")
        partial = [Partial(name, NOTHING_STARTED) for name in fields]
        return Reply(answer, status=200, observed_at=self._clock.now(), partial=partial)


def _begun(operation: Operation) -> Reply[OperationAnswer]:
    estimated = operation.estimated_completion
    answer = OperationAnswer(
        backup_id=operation.resource_id,
        status="started" if operation.approval is None else "pending_approval",
        operation_id=operation.id,
        started_at=operation.created_at.replace(microsecond=0),
        estimated_completion=None if estimated is None else estimated.replace(microsecond=0),
    )
    return started(operation, answer)
