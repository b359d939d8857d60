"""POST …/deployments/{deployment_name}/scale: plan, refuse or begin."""

from collections.abc import Sequence

import msgspec

from opsapi.applications.errors import (
    AutoscalerConflict,
    ManagedExternally,
    ProtectedNamespace,
)
from opsapi.applications.scale_planning import PlannedScale, ScalePlanner
from opsapi.applications.scale_rehearsal import ScaleRehearsal
from opsapi.applications.scaling_facts import check_names, find_deployment
from opsapi.applications.scaling_model import (
    Decision,
    ScaleAnswer,
    ScaleBody,
    ScaleFacts,
    ScaleOrder,
    ScaleParams,
)
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
from opsapi.operations.desk import Desk, started
from opsapi.operations.errors import InProgressDetails, OperationInProgress, StalePlan
from opsapi.operations.model import Operation, lock_key
from opsapi.operations.ports import Ledger
from opsapi.policy.evaluation import judge_mode
from opsapi.policy.model import Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters

_REQUEST = {
    "replicas": 5,
    "reason": "Increased traffic detected",
    "auto_scale_config": {
        "min_replicas": 2,
        "max_replicas": 10,
        "target_cpu_percentage": 70,
        "scale_down_delay": "5m",
    },
}
_RESPONSE = {
    "deployment_name": "api-service",
    "workspace_id": "ws-123",
    "previous_replicas": 3,
    "new_replicas": 5,
    "status": "scaling",
    "started_at": "2024-01-20T15:30:00Z",
    "estimated_completion": "2024-01-20T15:32:00Z",
    "project": "shop",
    "application_id": "app-123",
    "operation_id": "op-7k2m9q4x1v8c5b3n",
}


class ScaleEndpoints:
    def __init__(
        self,
        clusters: Clusters,
        rehearsal: ScaleRehearsal,
        planner: ScalePlanner,
        desk: Desk,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._clusters = clusters
        self._rehearsal = rehearsal
        self._planner = planner
        self._desk = desk
        self._ledger = ledger
        self._clock = clock

    @endpoint(
        "POST",
        "/internal/v1/workspaces/{workspace_id}/deployments/{deployment_name}/scale",
        permission=Permission.WORKSPACE_WRITE,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.KEYED,
        summary="Scale a deployment",
        tag="Workspaces",
        answer=ScaleAnswer,
        params=ScaleParams,
        body=ScaleBody,
        success=(202, 200),
        errors=(
            ValidationFailed,
            PolicyDenied,
            ProtectedNamespace,
            ResourceNotFound,
            AmbiguousResource,
            AutoscalerConflict,
            ManagedExternally,
            InvalidState,
            OperationInProgress,
            StalePlan,
            DependencyUnavailable,
        ),
        examples=(Example("scaling", response=_RESPONSE, request=_REQUEST, status=202),),
        dry_run=True,
    )
    async def scale_deployment(self, call: Call, params: ScaleParams, body: ScaleBody) -> Reply[ScaleAnswer]:
        """Sets a deployment's replicas through the scale subresource, and the bounds of its HorizontalPodAutoscaler
        where `auto_scale_config` is given (then `replicas` is clamped into them). Answers 202 once the operation is
        recorded; `Location` leads to it. Where everything is as asked already, 200 with status `unchanged`. With
        `dry_run: true`, 200 with the plan, and nothing is changed. `?project=` names the namespace where several hold
        a deployment of that name."""
        check_names(params.deployment_name, params.project)
        bounds = body.auto_scale_config.bounds() if body.auto_scale_config is not None else None
        cluster = self._clusters.find(params.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(params.workspace_id)
        earlier = await self._desk.earlier(call) if not body.dry_run else None
        if earlier is not None:
            return _started(earlier)
        caller = call.caller
        subject = Subject(caller.account_id, caller.kind, params.workspace_id, cluster.workspace.mode)
        refusal = judge_mode(subject)
        if refusal is not None and not body.dry_run:
            raise refusal.error()
        ref = find_deployment(cluster, self._desk.policy.settings, params.deployment_name, params.project)
        call.audit.resource = f"{ref.kind.kind}/{ref.namespace}/{ref.name}"
        call.audit.reason = reason = one_line(body.reason)
        planned = await self._planner.plan(
            cluster,
            ref,
            subject,
            replicas=body.replicas,
            bounds=bounds,
            reason=reason,
            confirm=body.confirmation_required,
        )
        if body.dry_run:
            return await self._rehearse(call, cluster, planned)
        if planned.decision.nothing_to_do and body.plan_hash is None:
            return await self._unchanged(planned)
        operation = await self._desk.begin(call, planned.proposal, given_hash=body.plan_hash)
        return _started(operation, planned.decision.warnings)

    async def _unchanged(self, planned: PlannedScale) -> Reply[ScaleAnswer]:
        """Also what a running operation has set, and may yet undo, looks like nothing to do: that one is named."""
        facts, decision = planned.facts, planned.decision
        if decision.refusals:
            raise decision.refusals[0]
        lock = lock_key(decision.order.workspace_id, facts.application_id)
        holder = await self._ledger.holder(lock)
        if holder is not None:
            raise OperationInProgress(InProgressDetails.of(lock, holder))
        reply = self._answer(facts, decision, "unchanged")
        reply.data = msgspec.structs.replace(reply.data, outcome="nothing_to_do")
        return reply

    def _answer(self, facts: ScaleFacts, decision: Decision, status: str) -> Reply[ScaleAnswer]:
        nothing = "nothing was started"
        return Reply(
            _answer(decision.order, facts.application_id, status),
            status=200,
            observed_at=self._clock.now(),
            partial=[Partial("started_at", nothing), Partial("estimated_completion", nothing)],
            warnings=list(decision.warnings),
        )

    async def _rehearse(self, call: Call, cluster: Cluster, planned: PlannedScale) -> Reply[ScaleAnswer]:
        outline, unobserved = await self._rehearsal.outline(call, cluster, planned)
        reply = self._answer(planned.facts, planned.decision, "planned")
        reply.data = msgspec.structs.replace(reply.data, plan=outline)
        reply.partial.extend(unobserved)
        return reply


def _answer(order: ScaleOrder, application_id: str, status: str) -> ScaleAnswer:
    return ScaleAnswer(
        deployment_name=order.name,
        workspace_id=order.workspace_id,
        previous_replicas=order.previous,
        new_replicas=order.replicas,
        status=status,
        started_at=None,
        estimated_completion=None,
        project=order.namespace,
        application_id=application_id,
    )


def _started(operation: Operation, warnings: Sequence[str] = ()) -> Reply[ScaleAnswer]:
    """From the operation alone, as it was begun."""
    order = msgspec.convert(operation.parameters, ScaleOrder)
    estimated = operation.estimated_completion
    waits = operation.approval is not None
    answer = msgspec.structs.replace(
        _answer(order, operation.resource_id, "pending_approval" if waits else "scaling"),
        started_at=None if waits else operation.created_at.replace(microsecond=0),
        estimated_completion=None if waits or estimated is None else estimated.replace(microsecond=0),
        operation_id=operation.id,
    )
    reply = started(operation, answer, warnings=warnings)
    if waits:
        reason = "the operation waits for a person's decision"
        reply.partial = [Partial("started_at", reason), Partial("estimated_completion", reason)]
    return reply
