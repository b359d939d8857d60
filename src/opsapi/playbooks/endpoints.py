"""POST …/operations: a playbook plans; policy decides; what is begun is followed as every operation is."""

from collections.abc import Sequence

import msgspec

from opsapi.applications.errors import ManagedExternally, ProtectedNamespace
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import WORKSPACE_OPERATIONS, Example, Idempotency, Partial, Reply, Scope, endpoint
from opsapi.kit.errors import (
    AmbiguousResource,
    DependencyUnavailable,
    InvalidState,
    PolicyDenied,
    ResourceNotFound,
    ValidationFailed,
)
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.operations.desk import Desk, Rehearsal, started
from opsapi.operations.errors import OperationInProgress, StalePlan
from opsapi.operations.model import Operation, State, Step
from opsapi.operations.proposal import Proposal
from opsapi.operations.view import untrusted, view
from opsapi.playbooks.model import (
    Context,
    OperationAnswer,
    OperationBody,
    OperationParams,
    PlannedOperation,
)
from opsapi.playbooks.ports import Playbook
from opsapi.playbooks.registry import Playbooks, decode_parameters
from opsapi.policy.model import Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Clusters

_REQUEST = {
    "operation": "auto_heal",
    "parameters": {"target_component": "database-app", "action": "restart_unhealthy_pods", "confirmation": True},
    "context": {"triggered_by": "health_monitor", "incident_id": "inc-456", "severity": "medium"},
}
_RESPONSE = {
    "operation_id": "op-789",
    "operation": "auto_heal",
    "status": "running",
    "started_at": "2024-01-20T15:30:00Z",
    "estimated_completion": "2024-01-20T15:35:00Z",
    "steps": [
        {"step": "identify_unhealthy_pods", "status": "pending", "estimated_duration": "5s"},
        {"step": "restart_pods", "status": "pending", "estimated_duration": "30s"},
        {"step": "verify_health", "status": "pending", "estimated_duration": "60s"},
    ],
}


class PlaybookEndpoints:
    def __init__(self, clusters: Clusters, desk: Desk, playbooks: Playbooks, clock: Clock) -> None:
        self._clusters = clusters
        self._desk = desk
        self._playbooks = playbooks
        self._clock = clock

    @endpoint(
        "POST",
        "/internal/v1/workspaces/{workspace_id}/operations",
        permission=Permission.WORKSPACE_ADMIN,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.KEYED,
        summary="Execute a workspace operation",
        tag="Workspaces",
        answer=OperationAnswer,
        success=(202, 200),
        errors=(
            ValidationFailed,
            PolicyDenied,
            ProtectedNamespace,
            ResourceNotFound,
            AmbiguousResource,
            ManagedExternally,
            InvalidState,
            OperationInProgress,
            StalePlan,
            DependencyUnavailable,
        ),
        examples=(Example("auto_heal", response=_RESPONSE, request=_REQUEST, status=202),),
        dry_run=True,
    )
    async def execute_workspace_operation(
        self, call: Call, params: OperationParams, body: OperationBody
    ) -> Reply[OperationAnswer]:
        """Heals, cleans up, optimizes, scans or backs up a workspace, as `operation` names it. Answers 202 once the
        operation is recorded; `Location` leads to it. Where policy or `confirmation: false` asks for a person's
        decision, its status is `pending_approval`. What needs no change ends with the outcome `nothing_to_do`, what
        should not be done by itself with `proposed`, and the findings in its result. With `dry_run: true`, 200 with
        the plan, and nothing is changed."""
        playbook = self._playbooks.find(body.operation)
        parameters = decode_parameters(playbook, body.parameters)
        cluster = self._clusters.find(params.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(params.workspace_id)
        earlier = await self._desk.earlier(call) if not body.dry_run else None
        if earlier is not None:
            return self._begun(earlier)
        caller = call.caller
        subject = Subject(caller.account_id, caller.kind, params.workspace_id, cluster.workspace.mode)
        call.audit.resource = f"workspace/{params.workspace_id}/{body.operation}"
        call.audit.reason = reason = one_line(body.reason)
        proposal = await playbook.propose(
            cluster,
            subject,
            parameters,
            context=_one_lined(body.context),
            reason=reason,
            confirm=not parameters.confirmation,
        )
        if body.dry_run:
            rehearsal = await self._desk.rehearse(call, proposal)
            return self._planned(playbook, params.workspace_id, proposal, rehearsal)
        operation = await self._desk.begin(call, proposal, given_hash=body.plan_hash)
        return self._begun(operation, warnings=proposal.warnings)

    def _begun(self, operation: Operation, *, warnings: Sequence[str] = ()) -> Reply[OperationAnswer]:
        """As it was begun, so that a replay is answered alike: nothing of what has happened since."""
        begun = msgspec.structs.replace(
            operation,
            state=State.QUEUED,
            outcome=None,
            result=None,
            error=None,
            started_at=operation.created_at,
            finished_at=None,
            approved_by=None,
            steps=tuple(
                Step(position=step.position, name=step.name, estimated_seconds=step.estimated_seconds)
                for step in operation.steps
            ),
        )
        shown = view(begun, operation.created_at)
        estimated = operation.estimated_completion
        status = "running" if operation.approval is None else State.PENDING_APPROVAL.value
        as_begun = {
            "status": status,
            "started_at": shown.started_at if operation.approval is None else None,
            "estimated_completion": None if estimated is None else estimated.replace(microsecond=0),
        }
        answer = OperationAnswer(**(msgspec.structs.asdict(shown) | as_begun))
        reply = started(operation, answer, warnings=warnings)
        reply.untrusted = untrusted(begun)
        if operation.approval is not None:
            reply.partial = [Partial("started_at", "the operation waits for a person's decision")]
        return reply

    def _planned(
        self, playbook: Playbook, workspace_id: str, proposal: Proposal, rehearsal: Rehearsal
    ) -> Reply[OperationAnswer]:
        nothing = "nothing was started"
        planned = PlannedOperation(
            allowed=rehearsal.allowed,
            refusals=rehearsal.refusals,
            needs_approval=rehearsal.needs_approval,
            steps=rehearsal.steps,
            details=proposal.plan,
            plan_hash=rehearsal.plan_hash,
            plan_expires_at=rehearsal.expires_at,
        )
        answer = OperationAnswer(
            operation_id=None,
            operation=playbook.operation,
            status="planned",
            outcome="nothing_to_do" if proposal.nothing_to_do else None,
            workspace_id=workspace_id,
            application_id=proposal.application_id,
            started_at=None,
            estimated_completion=None,
            steps=[],
            plan=planned,
        )
        fields = ("operation_id", "started_at", "estimated_completion")
        return Reply(
            answer,
            status=200,
            observed_at=self._clock.now(),
            partial=[Partial(field, nothing) for field in fields],
            untrusted=["/plan/details"],
            warnings=list(proposal.warnings),
        )


def _one_lined(context: Context) -> Context:
    return Context(
        triggered_by=one_line(context.triggered_by),
        incident_id=one_line(context.incident_id),
        severity=one_line(context.severity),
    )
