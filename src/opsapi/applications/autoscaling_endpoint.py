"""POST /applications/{application_id}/autoscale: measure, decide, and scale where there is need."""

from datetime import datetime

import msgspec
from msgspec import UNSET

from opsapi.applications.autoscaling_model import (
    AutoscaleAnswer,
    AutoscaleBody,
    AutoscaleOrder,
    AutoscaleParams,
    ScalingAction,
)
from opsapi.applications.autoscaling_planning import AutoscalePlanner, PlannedAutoscale
from opsapi.applications.errors import AutoscalerConflict, ManagedExternally, ProtectedNamespace
from opsapi.applications.identity import ApplicationRef, Applications
from opsapi.applications.ports import WorkloadRef
from opsapi.applications.scale_rehearsal import ScaleRehearsal
from opsapi.applications.scaling_model import SCALABLE
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import APPLICATION_OPERATIONS, Example, Idempotency, Partial, Reply, Scope, endpoint
from opsapi.kit.errors import (
    AmbiguousResource,
    DependencyUnavailable,
    InvalidState,
    PolicyDenied,
    ResourceNotFound,
    StateDetails,
    ValidationFailed,
)
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.operations.desk import Desk, started
from opsapi.operations.errors import OperationInProgress, StalePlan
from opsapi.operations.model import Operation
from opsapi.policy.evaluation import judge_mode
from opsapi.policy.model import Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters

_REQUEST = {
    "trigger": "cpu_threshold",
    "current_metrics": {"cpu_percentage": 85.3, "memory_percentage": 67.2, "request_rate": 245.8},
    "scaling_policy": {"scale_up_threshold": 80, "scale_down_threshold": 30, "cooldown_period": "5m"},
}
_RESPONSE = {
    "application_id": "app-123",
    "scaling_action": "scale_up",
    "previous_replicas": 3,
    "new_replicas": 5,
    "reason": "CPU usage of 85.3% exceeded the 80% threshold: (3 ready x 85.3%) / 55% = 5 replicas",
    "triggered_at": "2024-01-20T15:30:00Z",
    "estimated_completion": "2024-01-20T15:32:00Z",
    "status": "scaling",
    "operation_id": "op-7k2m9q4x1v8c5b3n",
    "measured": {
        "value": 85.3,
        "target": 55,
        "pods_ready": 3,
        "pods_measured": 3,
        "source": "prometheus",
        "observed_at": "2024-01-20T15:29:45Z",
    },
}


class AutoscaleEndpoints:
    def __init__(
        self,
        applications: Applications,
        clusters: Clusters,
        rehearsal: ScaleRehearsal,
        planner: AutoscalePlanner,
        desk: Desk,
        clock: Clock,
    ) -> None:
        self._applications = applications
        self._clusters = clusters
        self._rehearsal = rehearsal
        self._planner = planner
        self._desk = desk
        self._clock = clock

    @endpoint(
        "POST",
        "/internal/v1/applications/{application_id}/autoscale",
        permission=Permission.APPLICATION_WRITE,
        scope=Scope.APPLICATION,
        limit=APPLICATION_OPERATIONS,
        idempotency=Idempotency.KEYED,
        summary="Autoscale an application",
        tag="Applications",
        answer=AutoscaleAnswer,
        params=AutoscaleParams,
        body=AutoscaleBody,
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
        examples=(Example("scale_up", response=_RESPONSE, request=_REQUEST, status=202),),
        dry_run=True,
    )
    async def autoscale_application(
        self, call: Call, params: AutoscaleParams, body: AutoscaleBody
    ) -> Reply[AutoscaleAnswer]:
        """Measures a Deployment's or StatefulSet's load and scales it where the load is beyond a threshold: to
        ceil(ready pods x metric / middle of the thresholds). The caller's `current_metrics` are recorded and compared,
        never acted on. Between the thresholds 200 with `none`; else 202, and `Location` leads to the operation. It
        grows at most by the double or by 4 pods at once, and shrinks only to the most that the last minutes needed, as
        their history shows. Without a measurement 503. With `dry_run: true`, 200 with the plan, and nothing is
        changed."""
        ref, _ = self._applications.find(params.application_id, call.caller.grants)
        cluster = self._clusters.find(ref.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(ref.workspace_id)
        earlier = await self._desk.earlier(call) if not body.dry_run else None
        if earlier is not None:
            return started(earlier, _begun(earlier))
        call.audit.workspace_id = ref.workspace_id
        call.audit.resource = f"{ref.kind.kind}/{ref.namespace}/{ref.name}"
        call.audit.reason = reason = one_line(body.reason)
        self._check(ref)
        subject = Subject(call.caller.account_id, call.caller.kind, ref.workspace_id, cluster.workspace.mode)
        refusal = judge_mode(subject)
        if refusal is not None and not body.dry_run:
            raise refusal.error()
        target = WorkloadRef(ref.workspace_id, ref.kind, ref.namespace, ref.name, ref.uid)
        planned = await self._planner.plan(cluster, target, subject, body, reason=reason)
        if body.dry_run:
            return await self._rehearse(call, cluster, planned)
        if planned.wish.action is ScalingAction.NONE and body.plan_hash is None:
            return self._answer(planned, "unchanged")
        operation = await self._desk.begin(call, planned.scale.proposal, given_hash=body.plan_hash)
        return started(operation, _begun(operation), warnings=planned.scale.decision.warnings)

    def _check(self, ref: ApplicationRef) -> None:
        """Raises InvalidState where its kind has no replicas to set, ProtectedNamespace."""
        if self._desk.policy.settings.protects(ref.namespace):
            raise ProtectedNamespace(ref.namespace)
        if ref.kind not in SCALABLE:
            kinds = [kind.kind for kind in SCALABLE]
            details = StateDetails(resource_id=ref.id, state=ref.kind.kind, allowed_from=kinds)
            message = f"{ref.name} is a {ref.kind.kind}, which has no replicas to set"
            raise InvalidState(message, details)

    async def _rehearse(self, call: Call, cluster: Cluster, planned: PlannedAutoscale) -> Reply[AutoscaleAnswer]:
        outline, unobserved = await self._rehearsal.outline(call, cluster, planned.scale)
        reply = self._answer(planned, "planned")
        reply.data = msgspec.structs.replace(reply.data, plan=outline)
        reply.partial.extend(unobserved)
        return reply

    def _answer(self, planned: PlannedAutoscale, status: str) -> Reply[AutoscaleAnswer]:
        """Where nothing was started. `triggered_at` is then when it was decided."""
        now = self._clock.now()
        order, facts = planned.order, planned.scale.facts
        return Reply(
            msgspec.structs.replace(_view(order, facts.application_id, now), status=status),
            status=200,
            observed_at=(order.measured.observed_at if order.measured is not None else None) or now,
            partial=[Partial("estimated_completion", "nothing was started"), *_unmeasured(order)],
            warnings=list(planned.scale.decision.warnings),
        )


def _view(order: AutoscaleOrder, application_id: str, at: datetime) -> AutoscaleAnswer:
    return AutoscaleAnswer(
        application_id=application_id,
        scaling_action=order.action,
        previous_replicas=order.previous,
        new_replicas=order.replicas,
        reason=order.decided,
        triggered_at=at.replace(microsecond=0),
        estimated_completion=None,
        measured=order.measured if order.measured is not None else UNSET,
    )


def _begun(operation: Operation) -> AutoscaleAnswer:
    """From the operation alone, as it was begun."""
    order = msgspec.convert(operation.parameters, AutoscaleOrder)
    estimated = operation.estimated_completion
    return msgspec.structs.replace(
        _view(order, operation.resource_id, operation.created_at),
        estimated_completion=estimated.replace(microsecond=0) if estimated is not None else None,
        status="scaling" if operation.approval is None else "pending_approval",
        operation_id=operation.id,
    )


def _unmeasured(order: AutoscaleOrder) -> list[Partial]:
    if order.measured is None or order.measured.value is not None:
        return []
    return [Partial(f"measured.{field}", order.decided) for field in ("value", "source", "observed_at")]
