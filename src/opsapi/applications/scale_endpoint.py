"""POST …/deployments/{deployment_name}/scale: plan, refuse or begin."""

import re
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from opsapi.applications.errors import (
    AutoscalerConflict,
    ManagedExternally,
    ProtectedNamespace,
    TargetGone,
    WriteConflict,
    WriteRefused,
)
from opsapi.applications.ports import AutoscalerBounds, WorkloadRef, Workloads
from opsapi.applications.scaling import ACTION, plan, wanted_replicas
from opsapi.applications.scaling_facts import check_names, find_deployment, gather
from opsapi.applications.scaling_model import (
    Decision,
    ObjectChange,
    PlannedStep,
    PlanRefusal,
    PodsAffected,
    ScaleAnswer,
    ScaleBody,
    ScaleFacts,
    ScaleParams,
    ScalePlan,
)
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.duration import format_seconds
from opsapi.kit.endpoint import WORKSPACE_OPERATIONS, Example, Idempotency, Partial, Reply, Scope, endpoint
from opsapi.kit.errors import (
    AmbiguousResource,
    DependencyUnavailable,
    InvalidState,
    PolicyDenied,
    PolicyRule,
    ResourceNotFound,
    ValidationFailed,
)
from opsapi.kit.ids import new_id
from opsapi.kit.permissions import Permission
from opsapi.operations.errors import InProgressDetails, OperationInProgress
from opsapi.operations.estimates import RUNS_CONSIDERED, step_estimates
from opsapi.operations.model import NewOperation, NewStep, lock_key
from opsapi.operations.ports import Ledger
from opsapi.operations.procedures import Procedure
from opsapi.policy.evaluation import judge_mode
from opsapi.policy.model import PolicySettings, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.model import Mode
from opsapi.workspaces.ports import Cluster, Clusters

_POLL_MS = 1000
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NOT_LIFTED = (AutoscalerConflict, ManagedExternally, ProtectedNamespace, InvalidState)
"""What no approval could lift is an error in a dry run too; the rest is part of the plan."""
_NO_PRICES = "no price book is configured"
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
        workloads: Workloads,
        ledger: Ledger,
        procedure: Procedure,
        policy: PolicySettings,
        clock: Clock,
    ) -> None:
        self._clusters = clusters
        self._workloads = workloads
        self._ledger = ledger
        self._procedure = procedure
        self._policy = policy
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
        caller = call.caller
        subject = Subject(caller.account_id, caller.kind, params.workspace_id, cluster.workspace.mode)
        refusal = judge_mode(subject)
        if refusal is not None and not body.dry_run:
            raise refusal.error()
        ref = find_deployment(cluster, self._policy, params.deployment_name, params.project)
        call.audit.resource = f"{ref.kind.kind}/{ref.namespace}/{ref.name}"
        call.audit.reason = reason = _printable(body.reason)
        facts = await gather(cluster, self._workloads, ref, wanted=wanted_replicas(body.replicas, bounds))
        decision = plan(facts, subject, self._policy, replicas=body.replicas, bounds=bounds, reason=reason)
        if body.dry_run:
            return await self._rehearse(cluster, facts, decision)
        if decision.refusals:
            raise decision.refusals[0]
        if decision.nothing_to_do:
            return await self._unchanged(facts, decision)
        return await self._begin(call, facts, decision)

    async def _begin(self, call: Call, facts: ScaleFacts, decision: Decision) -> Reply[ScaleAnswer]:
        now = self._clock.now()
        order = decision.order
        estimates = await self._estimates(decision.steps)
        new = NewOperation(
            id=new_id("op"),
            action=ACTION,
            version=self._procedure.version,
            workspace_id=order.workspace_id,
            application_id=facts.application_id,
            resource_id=facts.application_id,
            resource_uid=order.uid,
            parameters=msgspec.to_builtins(order),
            plan={"objects": msgspec.to_builtins(decision.objects)},
            plan_hash=decision.plan_hash,
            reason=order.reason,
            steps=tuple(NewStep(step, estimates[step]) for step in decision.steps),
            estimated_completion=now + timedelta(seconds=sum(estimates.values())),
            deadline_at=now + self._procedure.deadline,
        )
        begun = await self._ledger.begin(new, call, locks={lock_key(order.workspace_id, facts.application_id)})
        answer = ScaleAnswer(
            deployment_name=order.name,
            workspace_id=order.workspace_id,
            previous_replicas=order.previous,
            new_replicas=order.replicas,
            status="scaling",
            started_at=begun.created_at.replace(microsecond=0),
            estimated_completion=new.estimated_completion.replace(microsecond=0),
            project=order.namespace,
            application_id=facts.application_id,
            operation_id=begun.id,
        )
        return Reply(
            answer,
            status=202,
            observed_at=now,
            operation_id=begun.id,
            poll_after_ms=_POLL_MS,
            warnings=list(decision.warnings),
        )

    async def _unchanged(self, facts: ScaleFacts, decision: Decision) -> Reply[ScaleAnswer]:
        """Also what a running operation has set, and may yet undo, looks like nothing to do: that one is named."""
        order = decision.order
        holder = await self._ledger.holder(lock_key(order.workspace_id, facts.application_id))
        if holder is not None:
            estimated = holder.estimated_completion
            raise OperationInProgress(
                InProgressDetails(
                    resource_id=facts.application_id,
                    current_operation=holder.action,
                    estimated_completion=estimated.replace(microsecond=0) if estimated is not None else None,
                    current_operation_id=holder.id,
                )
            )
        reply = self._answer(facts, decision, "unchanged")
        reply.data = msgspec.structs.replace(reply.data, outcome="nothing_to_do")
        return reply

    def _answer(self, facts: ScaleFacts, decision: Decision, status: str) -> Reply[ScaleAnswer]:
        order = decision.order
        answer = ScaleAnswer(
            deployment_name=order.name,
            workspace_id=order.workspace_id,
            previous_replicas=order.previous,
            new_replicas=order.replicas,
            status=status,
            started_at=None,
            estimated_completion=None,
            project=order.namespace,
            application_id=facts.application_id,
        )
        nothing = "nothing was started"
        return Reply(
            answer,
            status=200,
            observed_at=self._clock.now(),
            partial=[Partial("started_at", nothing), Partial("estimated_completion", nothing)],
            warnings=list(decision.warnings),
        )

    async def _rehearse(self, cluster: Cluster, facts: ScaleFacts, decision: Decision) -> Reply[ScaleAnswer]:
        for refusal in decision.refusals:
            maximum = isinstance(refusal, PolicyDenied) and _rule(refusal) == PolicyRule.MAX_REPLICAS
            if maximum or isinstance(refusal, _NOT_LIFTED):
                raise refusal
        estimates = await self._estimates(decision.steps)
        objects = [await self._try(cluster, facts, decision, change) for change in decision.objects]
        delta = decision.order.replicas - facts.scale.current
        outline = ScalePlan(
            allowed=not decision.refusals and all(change.accepted is not False for change in objects),
            refusals=[
                PlanRefusal(code=r.code, message=r.message, details=msgspec.to_builtins(r.details))
                for r in decision.refusals
            ],
            steps=[PlannedStep(step, format_seconds(timedelta(seconds=estimates[step]))) for step in decision.steps]
            if not decision.nothing_to_do
            else [],
            objects=objects,
            pods_affected=PodsAffected(added=max(0, delta), removed=max(0, -delta)),
            disruption_budgets=None if decision.budgets is None else list(decision.budgets),
            quotas=None if decision.quotas is None else list(decision.quotas),
            capacity=decision.capacity,
            cost_change=None,
            plan_hash=decision.plan_hash,
        )
        reply = self._answer(facts, decision, "planned")
        reply.data = msgspec.structs.replace(reply.data, plan=outline)
        reply.partial.extend(_unobserved(outline))
        return reply

    async def _try(self, cluster: Cluster, facts: ScaleFacts, decision: Decision, change: ObjectChange) -> ObjectChange:
        """Asks the API server by a dry run, except where the workspace's owner wants no write verb sent at all."""
        if cluster.workspace.mode not in (Mode.ACT, Mode.PROPOSE):
            reason = "the workspace only observes, so the API server was not asked"
            return msgspec.structs.replace(change, reason=reason)
        try:
            if change.kind == facts.ref.kind.kind:
                version = facts.scale.resource_version
                await self._workloads.write_scale(
                    facts.ref, decision.order.replicas, resource_version=version, dry_run=True
                )
            else:
                await self._dry_autoscaler(facts.ref, facts, decision)
        except WriteRefused as error:
            return msgspec.structs.replace(change, accepted=False, reason=f"{error.reason}: {error.message}"[:500])
        except (WriteConflict, TargetGone):
            reason = "the object changed while the plan was made; ask again"
            return msgspec.structs.replace(change, reason=reason)
        return msgspec.structs.replace(change, accepted=True)

    async def _dry_autoscaler(self, ref: WorkloadRef, facts: ScaleFacts, decision: Decision) -> None:
        ordered = decision.order.autoscaler
        if ordered is not None:
            wanted: AutoscalerBounds = ordered.wanted
            await self._workloads.write_autoscaler(
                ref, wanted, existing=facts.autoscaler, operation_id="op-dry-run", dry_run=True
            )

    async def _estimates(self, steps: Sequence[str]) -> dict[str, float]:
        history = await self._ledger.step_durations(ACTION, RUNS_CONSIDERED)
        return step_estimates(self._procedure, steps, history)


def _rule(refusal: PolicyDenied) -> str:
    return str(getattr(refusal.details, "rule", ""))


def _printable(reason: str | None) -> str | None:
    """On one line: it goes into events, tables and terminals."""
    if reason is None:
        return None
    return _UNPRINTABLE.sub(" ", reason).strip() or None


def _unobserved(outline: ScalePlan) -> list[Partial]:
    found = [Partial("plan.cost_change", _NO_PRICES)]
    if outline.disruption_budgets is None:
        found.append(Partial("plan.disruption_budgets", "PodDisruptionBudgets could not be read"))
    if outline.quotas is None:
        found.append(Partial("plan.quotas", "ResourceQuotas could not be read"))
    if outline.capacity.fits is None:
        found.append(Partial("plan.capacity.fits", outline.capacity.reason or "not observed"))
    return found
