"""POST …/backups/{backup_id}/restore: plan, refuse or begin."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.applications.errors import ManagedExternally, ProtectedNamespace
from opsapi.backups.backup_endpoint import NOTHING_STARTED, plan_of
from opsapi.backups.backups_endpoint import BackupReader
from opsapi.backups.errors import BackupDamaged, BackupNotFound, ObjectsExist
from opsapi.backups.restore_planning import PlannedRestore, RestorePlanner
from opsapi.backups.restoring import Creation, RestoreOptions, RestoreOrder
from opsapi.backups.views import BackupParams, Name, Plan, Text
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import OTHER, Body, Idempotency, Partial, Reply, Scope, endpoint
from opsapi.kit.errors import (
    DependencyUnavailable,
    InvalidState,
    PolicyDenied,
    ResourceNotFound,
    ValidationFailed,
)
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.operations.desk import Desk, PlanHash, Rehearsal, started
from opsapi.operations.errors import OperationInProgress, StalePlan
from opsapi.operations.model import Operation
from opsapi.policy.model import Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.model import Mode
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import Objects, TargetGone, WriteConflict, WriteRefused

_OBSERVES = "the workspace only observes, so the API server was not asked"
_BY_VELERO = "Velero creates it; the API server cannot be asked before"


class RestoreBody(Body, frozen=True, kw_only=True):
    """`target_namespace` and `target_workspace`: elsewhere than where it came from; both have to exist. Unless
    `activate`, what arrives is inert. `include_volumes: false` leaves claims and their contents alone."""

    target_namespace: Name | None = None
    target_workspace: Name | None = None
    activate: bool = False
    include_volumes: bool = True
    reason: Text | None = None
    confirmation_required: bool = False
    dry_run: bool = False
    plan_hash: PlanHash | None = None


class RestoreAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: `started` (202), `pending_approval` (202) or `planned` (dry run). `application_id` is the id that the
    application will have where it arrives."""

    backup_id: str
    application_id: str
    workspace_id: str
    namespace: str
    activate: bool
    status: str
    started_at: datetime | None
    estimated_completion: datetime | None
    operation_id: str | UnsetType = UNSET
    plan: Plan | UnsetType = UNSET


class RestoreEndpoints:
    def __init__(
        self,
        reader: BackupReader,
        planner: RestorePlanner,
        clusters: Clusters,
        objects: Objects,
        desk: Desk,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._planner = planner
        self._clusters = clusters
        self._objects = objects
        self._desk = desk
        self._clock = clock

    @endpoint(
        "POST",
        "/internal/v1/backups/{backup_id}/restore",
        permission=Permission.WORKSPACE_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Restore a backup",
        tag="Backups",
        answer=RestoreAnswer,
        success=(202, 200),
        errors=(
            ValidationFailed,
            InsufficientInternalPermissions,
            BackupNotFound,
            BackupDamaged,
            ObjectsExist,
            ManagedExternally,
            ProtectedNamespace,
            ResourceNotFound,
            InvalidState,
            PolicyDenied,
            OperationInProgress,
            StalePlan,
            DependencyUnavailable,
        ),
        dry_run=True,
    )
    async def restore_backup(self, call: Call, params: BackupParams, body: RestoreBody) -> Reply[RestoreAnswer]:
        """Creates what a backup holds, in its own namespace or another, as an operation. It never overwrites: objects
        that exist are refused with their list. Unless `activate: true` is approved it arrives inert: 0 replicas,
        CronJobs suspended, Services within the cluster, no Ingress, no HorizontalPodAutoscaler. A damaged backup is
        refused before anything is touched. Needs `workspace:admin` where it came from and where it goes. With
        `dry_run: true`, 200 with each object and what the API server says of it."""
        earlier = await self._desk.earlier(call) if not body.dry_run else None
        if earlier is not None:
            return _begun(earlier)
        backup = await self._reader.find(call, params.backup_id, Permission.WORKSPACE_ADMIN)
        options = RestoreOptions(
            workspace_id=body.target_workspace or backup.workspace_id,
            namespace=body.target_namespace or backup.namespace,
            activate=body.activate,
            include_volumes=body.include_volumes,
            reason=one_line(body.reason),
        )
        call.audit.reason = options.reason
        cluster, subject = self._ground(call, options.workspace_id)
        planned = await self._planner.plan(cluster, backup, subject, options, confirm=body.confirmation_required)
        if body.dry_run:
            return await self._planned(call, cluster, planned)
        operation = await self._desk.begin(call, planned.proposal, given_hash=body.plan_hash)
        return _begun(operation, warnings=planned.proposal.warnings)

    def _ground(self, call: Call, workspace_id: str) -> tuple[Cluster, Subject]:
        """Raises WorkspaceNotFound, InsufficientInternalPermissions."""
        caller = call.caller
        cluster = self._clusters.find(workspace_id)
        if cluster is None or not caller.grants.sees(workspace_id):
            raise WorkspaceNotFound(workspace_id)
        if not caller.grants.allows(Permission.WORKSPACE_ADMIN, workspace_id):
            raise InsufficientInternalPermissions(Permission.WORKSPACE_ADMIN, caller.grants)
        return cluster, Subject(caller.account_id, caller.kind, workspace_id, cluster.workspace.mode)

    async def _planned(self, call: Call, cluster: Cluster, planned: PlannedRestore) -> Reply[RestoreAnswer]:
        rehearsal = await self._desk.rehearse(call, planned.proposal)
        verdicts = [await self._verdict(cluster, one) for one in planned.objects]
        objects = planned.proposal.plan["objects"]
        if not verdicts:
            verdicts = [{"accepted": None, "reason": _BY_VELERO} for _ in objects]
        told = [one | verdict for one, verdict in zip(objects, verdicts, strict=True)]
        answer = _answer(planned.order, "planned")
        plan = plan_of(planned.proposal, _with_verdicts(rehearsal, verdicts))
        plan = msgspec.structs.replace(plan, details=planned.proposal.plan | {"objects": told})
        partial = [Partial(name, NOTHING_STARTED) for name in ("started_at", "estimated_completion")]
        return Reply(
            msgspec.structs.replace(answer, plan=plan),
            status=200,
            observed_at=self._clock.now(),
            partial=partial,
            untrusted=[f"/plan/details/objects/{i}/reason" for i, one in enumerate(told) if one["reason"]],
            warnings=list(planned.proposal.warnings),
        )

    async def _verdict(self, cluster: Cluster, creation: Creation) -> dict[str, Any]:
        """The API server's own, except where the workspace's owner wants no write verb sent at all."""
        if cluster.workspace.mode not in (Mode.ACT, Mode.PROPOSE):
            return {"accepted": None, "reason": _OBSERVES}
        resource, body = creation
        try:
            await self._objects.create(cluster.workspace.id, resource, body, dry_run=True)
        except WriteRefused as error:
            return {"accepted": False, "reason": (one_line(str(error)) or "")[:500]}
        except WriteConflict:
            return {"accepted": False, "reason": "an object of that name exists"}
        except TargetGone:
            return {"accepted": False, "reason": "the cluster does not serve it, or its namespace is gone"}
        return {"accepted": True, "reason": None}


def _with_verdicts(rehearsal: Rehearsal, verdicts: list[dict[str, Any]]) -> Rehearsal:
    if all(one["accepted"] is not False for one in verdicts):
        return rehearsal
    return msgspec.structs.replace(rehearsal, allowed=False)


def _answer(order: RestoreOrder, status: str) -> RestoreAnswer:
    options = order.options
    return RestoreAnswer(
        backup_id=order.backup_id,
        application_id=order.application_id,
        workspace_id=options.workspace_id,
        namespace=options.namespace,
        activate=options.activate,
        status=status,
        started_at=None,
        estimated_completion=None,
    )


def _begun(operation: Operation, *, warnings: tuple[str, ...] = ()) -> Reply[RestoreAnswer]:
    order = msgspec.convert(operation.parameters, RestoreOrder)
    estimated = operation.estimated_completion
    answer = msgspec.structs.replace(
        _answer(order, "started" if operation.approval is None else "pending_approval"),
        started_at=operation.created_at.replace(microsecond=0),
        estimated_completion=None if estimated is None else estimated.replace(microsecond=0),
        operation_id=operation.id,
    )
    return started(operation, answer, warnings=warnings)
