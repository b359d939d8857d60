"""From a wish to a proposal: fresh facts, the pure plan, what policy is to weigh; and again for an approval later."""

from dataclasses import dataclass

import msgspec

from opsapi.applications.ports import AutoscalerBounds, WorkloadRef, Workloads
from opsapi.applications.scaling import ACTION, plan, wanted_replicas
from opsapi.applications.scaling_facts import gather
from opsapi.applications.scaling_model import Decision, ScaleFacts, ScaleOrder
from opsapi.kit.errors import ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation, lock_key
from opsapi.operations.proposal import Proposal
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Ask, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import Objects


@dataclass(frozen=True, slots=True)
class PlannedScale:
    facts: ScaleFacts
    decision: Decision
    proposal: Proposal


class ScalePlanner:
    def __init__(self, clusters: Clusters, workloads: Workloads, objects: Objects, policy: PolicyBook) -> None:
        self._clusters = clusters
        self._workloads = workloads
        self._objects = objects
        self._policy = policy

    async def plan(
        self,
        cluster: Cluster,
        ref: WorkloadRef,
        subject: Subject,
        *,
        replicas: int,
        bounds: AutoscalerBounds | None,
        reason: str | None,
        confirm: bool = False,
    ) -> PlannedScale:
        """Raises ResourceNotFound and DependencyUnavailable as `gather` does, ValidationFailed where an autoscaler
        has no such field."""
        wanted = wanted_replicas(replicas, bounds)
        facts = await gather(cluster, self._workloads, self._objects, ref, wanted=wanted)
        if facts.scaled_object is not None and bounds is not None and bounds.target_cpu_percentage is not None:
            told = f"KEDA's ScaledObject {facts.scaled_object.metadata.name} scales by its triggers: change them there"
            raise ValidationFailed({"auto_scale_config.target_cpu_percentage": told})
        decision = plan(facts, subject, self._policy.settings, replicas=replicas, bounds=bounds, reason=reason)
        return PlannedScale(facts, decision, proposal_of(cluster, facts, decision, subject, confirm))

    async def replan(self, operation: Operation) -> Proposal:
        """What the operation's order would do now, for whoever asked for it. Raises as `plan` does, and
        WorkspaceNotFound."""
        order = msgspec.convert(operation.parameters, ScaleOrder)
        cluster = self._clusters.find(order.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.workspace_id, cluster.workspace.mode)
        bounds = order.autoscaler.wanted if order.autoscaler is not None else None
        planned = await self.plan(
            cluster, order.ref, subject, replicas=order.replicas, bounds=bounds, reason=order.reason
        )
        return planned.proposal


def proposal_of(cluster: Cluster, facts: ScaleFacts, decision: Decision, subject: Subject, confirm: bool) -> Proposal:
    order = decision.order
    autoscaler = facts.scaled_object or facts.autoscaler
    lock = lock_key(order.workspace_id, facts.application_id)
    objects = msgspec.to_builtins(decision.objects)
    return Proposal(
        action=ACTION,
        workspace_id=order.workspace_id,
        application_id=facts.application_id,
        resource_id=facts.application_id,
        resource_uid=order.uid,
        permission=Permission.WORKSPACE_WRITE,
        parameters=msgspec.to_builtins(order),
        plan={"objects": objects},
        intended={
            "replicas": order.replicas,
            "autoscaler": order.autoscaler.wanted if order.autoscaler is not None else None,
            "generation": facts.workload.metadata.generation,
            "autoscaler_generation": autoscaler.metadata.generation if autoscaler is not None else None,
            "objects": objects,
        },
        steps=decision.steps if not decision.nothing_to_do else (),
        locks=frozenset({lock}),
        ask=Ask(
            subject=subject,
            action=ACTION,
            at=cluster.inventory.now(),
            targets=(lock,),
            replicas=decision.change,
            wants_approval=confirm,
        ),
        refusals=decision.refusals,
        warnings=decision.warnings,
        reason=order.reason,
        nothing_to_do=decision.nothing_to_do,
    )
