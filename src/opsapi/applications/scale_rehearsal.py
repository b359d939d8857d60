"""A dry run of scaling: what policy, the API server, quotas and budgets say to it; nothing is changed."""

import msgspec

from opsapi.applications.errors import (
    AutoscalerConflict,
    ManagedExternally,
    ProtectedNamespace,
    TargetGone,
    WriteConflict,
    WriteRefused,
)
from opsapi.applications.ports import Workloads
from opsapi.applications.scale_planning import PlannedScale
from opsapi.applications.scaling_keda import ScaledObjectSteps
from opsapi.applications.scaling_model import Decision, ObjectChange, PodsAffected, ScaleFacts, ScalePlan
from opsapi.kit.caller import Call
from opsapi.kit.endpoint import Partial
from opsapi.kit.errors import InvalidState
from opsapi.operations.desk import Desk
from opsapi.workspaces.model import Mode
from opsapi.workspaces.objects import SCALED_OBJECT
from opsapi.workspaces.ports import Cluster

_NOT_LIFTED = (AutoscalerConflict, ManagedExternally, ProtectedNamespace, InvalidState)
"""What no approval could lift is an error in a dry run too; the rest is part of the plan."""
_NO_PRICES = "no price book is configured"


class ScaleRehearsal:
    def __init__(self, workloads: Workloads, scaled_objects: ScaledObjectSteps, desk: Desk) -> None:
        self._workloads = workloads
        self._scaled_objects = scaled_objects
        self._desk = desk

    async def outline(self, call: Call, cluster: Cluster, planned: PlannedScale) -> tuple[ScalePlan, list[Partial]]:
        """The plan, and why figures of it are null (below `plan.`). Raises what no approval could lift."""
        facts, decision = planned.facts, planned.decision
        for refusal in decision.refusals:
            if isinstance(refusal, _NOT_LIFTED):
                raise refusal
        rehearsal = await self._desk.rehearse(call, planned.proposal)
        objects = [await self._try(cluster, facts, decision, change) for change in decision.objects]
        delta = decision.order.replicas - facts.scale.current
        outline = ScalePlan(
            allowed=rehearsal.allowed and all(change.accepted is not False for change in objects),
            refusals=rehearsal.refusals,
            needs_approval=rehearsal.needs_approval,
            steps=rehearsal.steps,
            objects=objects,
            pods_affected=PodsAffected(added=max(0, delta), removed=max(0, -delta)),
            disruption_budgets=None if decision.budgets is None else list(decision.budgets),
            quotas=None if decision.quotas is None else list(decision.quotas),
            capacity=decision.capacity,
            cost_change=None,
            plan_hash=rehearsal.plan_hash,
            plan_expires_at=rehearsal.expires_at,
        )
        return outline, _unobserved(outline)

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
                await self._try_autoscaler(facts, decision)
        except WriteRefused as error:
            return msgspec.structs.replace(change, accepted=False, reason=f"{error.reason}: {error.message}"[:500])
        except (WriteConflict, TargetGone):
            reason = "the object changed while the plan was made; ask again"
            return msgspec.structs.replace(change, reason=reason)
        return msgspec.structs.replace(change, accepted=True)

    async def _try_autoscaler(self, facts: ScaleFacts, decision: Decision) -> None:
        ordered = decision.order.autoscaler
        if ordered is None:
            return
        if ordered.kind == SCALED_OBJECT.kind:
            await self._scaled_objects.dry_run(decision.order, ordered)
            return
        await self._workloads.write_autoscaler(
            facts.ref, ordered.wanted, existing=facts.autoscaler, operation_id="op-dry-run", dry_run=True
        )


def _unobserved(outline: ScalePlan) -> list[Partial]:
    found = [Partial("plan.cost_change", _NO_PRICES)]
    if outline.disruption_budgets is None:
        found.append(Partial("plan.disruption_budgets", "PodDisruptionBudgets could not be read"))
    if outline.quotas is None:
        found.append(Partial("plan.quotas", "ResourceQuotas could not be read"))
    if outline.capacity.fits is None:
        found.append(Partial("plan.capacity.fits", outline.capacity.reason or "not observed"))
    return found
