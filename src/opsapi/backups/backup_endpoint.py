"""POST …/applications/{application_id}/backup: plan, refuse or begin."""

import msgspec

from opsapi.applications.errors import ApplicationNotFound, ProtectedNamespace
from opsapi.applications.identity import Applications
from opsapi.backups.model import BackupOrder, Target, backup_id_of
from opsapi.backups.planning import BackupOptions, BackupPlanner
from opsapi.backups.views import ApplicationParams, BackupAnswer, BackupBody, Plan
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import APPLICATION_OPERATIONS, Example, Idempotency, Partial, Reply, Scope, endpoint
from opsapi.kit.errors import (
    AmbiguousResource,
    DependencyUnavailable,
    InvalidState,
    PolicyDenied,
    ValidationFailed,
)
from opsapi.kit.permissions import Permission
from opsapi.kit.quantity import format_bytes
from opsapi.kit.text import one_line
from opsapi.operations.desk import Desk, Rehearsal, started
from opsapi.operations.errors import OperationInProgress, StalePlan
from opsapi.operations.model import Operation
from opsapi.operations.proposal import Proposal
from opsapi.policy.model import Subject

NOTHING_STARTED = "nothing was started"
_NO_ESTIMATE = "no volume states its size, and there is no earlier backup to go by"
_REQUEST = {
    "backup_type": "automated",
    "reason": "pre_deployment_backup",
    "retention_policy": "standard",
    "include_volumes": True,
    "notification_channels": ["slack:#ops"],
}
_RESPONSE = {
    "backup_id": "backup-789",
    "application_id": "app-123",
    "status": "started",
    "started_at": "2024-01-20T15:30:00Z",
    "estimated_completion": "2024-01-20T15:45:00Z",
    "backup_size_estimate": "2.5Gi",
}


class BackupEndpoints:
    def __init__(self, applications: Applications, planner: BackupPlanner, desk: Desk, clock: Clock) -> None:
        self._applications = applications
        self._planner = planner
        self._desk = desk
        self._clock = clock

    @endpoint(
        "POST",
        "/internal/v1/applications/{application_id}/backup",
        permission=Permission.APPLICATION_WRITE,
        scope=Scope.APPLICATION,
        limit=APPLICATION_OPERATIONS,
        idempotency=Idempotency.KEYED,
        summary="Back an application up",
        tag="Backups",
        answer=BackupAnswer,
        success=(202, 200),
        errors=(
            ValidationFailed,
            PolicyDenied,
            ProtectedNamespace,
            ApplicationNotFound,
            AmbiguousResource,
            InvalidState,
            OperationInProgress,
            StalePlan,
            DependencyUnavailable,
        ),
        examples=(Example("started", response=_RESPONSE, request=_REQUEST, status=202),),
        dry_run=True,
    )
    async def trigger_backup(self, call: Call, params: ApplicationParams, body: BackupBody) -> Reply[BackupAnswer]:
        """Backs up the application's objects and volumes: with Velero where the cluster serves it, else its manifests
        with checksums into the configured store and its volumes as CSI snapshots. Answers 202 once the operation is
        recorded; `GET /backups/{backup_id}` shows what came of it. With `dry_run: true`, 200 with what would be taken
        and what would be left out."""
        ref, view = self._applications.find(params.application_id, call.caller.grants)
        options = BackupOptions(
            backup_type=body.backup_type,
            retention_policy=body.retention_policy,
            include_volumes=body.include_volumes,
            channels=tuple(body.notification_channels),
            reason=one_line(body.reason),
        )
        self._planner.check(options)
        earlier = await self._desk.earlier(call) if not body.dry_run else None
        if earlier is not None:
            return begun(earlier)
        cluster, caller = view.cluster, call.caller
        subject = Subject(caller.account_id, caller.kind, ref.workspace_id, cluster.workspace.mode)
        call.audit.resource = f"{ref.kind.kind}/{ref.namespace}/{ref.name}"
        call.audit.reason = options.reason
        target = Target(
            workspace_id=ref.workspace_id,
            application_id=ref.id,
            kind=ref.kind.kind,
            namespace=ref.namespace,
            name=ref.name,
            uid=ref.uid,
        )
        planned = await self._planner.plan(cluster, target, subject, options, confirm=body.confirmation_required)
        if body.dry_run:
            rehearsal = await self._desk.rehearse(call, planned.proposal)
            return self._planned(planned.order, planned.proposal, rehearsal)
        operation = await self._desk.begin(call, planned.proposal, given_hash=body.plan_hash)
        return begun(operation, warnings=planned.proposal.warnings)

    def _planned(self, order: BackupOrder, proposal: Proposal, rehearsal: Rehearsal) -> Reply[BackupAnswer]:
        answer = BackupAnswer(
            backup_id=None,
            application_id=order.target.application_id,
            status="planned",
            started_at=None,
            estimated_completion=None,
            backup_size_estimate=_estimate(order),
            backup_size_basis=order.size_basis,
            engine=order.engine,
            plan=plan_of(proposal, rehearsal),
        )
        partial = [Partial(name, NOTHING_STARTED) for name in ("backup_id", "started_at", "estimated_completion")]
        return Reply(
            answer,
            status=200,
            observed_at=self._clock.now(),
            partial=partial + _unestimated(order),
            warnings=list(proposal.warnings),
        )


def begun(operation: Operation, *, warnings: tuple[str, ...] = ()) -> Reply[BackupAnswer]:
    """From the operation alone, as it was begun."""
    order = msgspec.convert(operation.parameters, BackupOrder)
    estimated = operation.estimated_completion
    waits = operation.approval is not None
    answer = BackupAnswer(
        backup_id=backup_id_of(operation.id),
        application_id=order.target.application_id,
        status="pending_approval" if waits else "started",
        started_at=operation.created_at.replace(microsecond=0),
        estimated_completion=None if estimated is None else estimated.replace(microsecond=0),
        backup_size_estimate=_estimate(order),
        backup_size_basis=order.size_basis,
        engine=order.engine,
        operation_id=operation.id,
    )
    reply = started(operation, answer, warnings=warnings)
    reply.partial = _unestimated(order)
    return reply


def plan_of(proposal: Proposal, rehearsal: Rehearsal) -> Plan:
    return Plan(
        allowed=rehearsal.allowed,
        refusals=rehearsal.refusals,
        needs_approval=rehearsal.needs_approval,
        steps=rehearsal.steps,
        details=proposal.plan,
        plan_hash=rehearsal.plan_hash,
        plan_expires_at=rehearsal.expires_at,
    )


def _estimate(order: BackupOrder) -> str | None:
    return None if order.size_estimate is None else format_bytes(order.size_estimate)


def _unestimated(order: BackupOrder) -> list[Partial]:
    if order.size_estimate is not None:
        return []
    return [Partial("backup_size_estimate", _NO_ESTIMATE), Partial("backup_size_basis", _NO_ESTIMATE)]
