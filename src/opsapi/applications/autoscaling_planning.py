"""From a question to a proposal: fresh facts, a measurement, the wish, what policy is to weigh."""

from dataclasses import dataclass

import msgspec

from opsapi.applications.autoscaling import disagreement, wish
from opsapi.applications.autoscaling_model import (
    AutoscaleBody,
    AutoscaleOrder,
    MeasuredView,
    Measurement,
    ScalingAction,
    Thresholds,
    Trigger,
    Window,
    Wish,
)
from opsapi.applications.measuring import Measurer
from opsapi.applications.ports import WorkloadRef, Workloads
from opsapi.applications.scale_planning import PlannedScale, proposal_of
from opsapi.applications.scaling import plan
from opsapi.applications.scaling_facts import capacity_for, gather
from opsapi.applications.scaling_model import Decision, ScaleFacts
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation
from opsapi.operations.proposal import Proposal
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import Objects

ACTION = "autoscale"
_NO_WINDOW = Window(0, (), "it was not looked at")


@dataclass(frozen=True, slots=True)
class PlannedAutoscale:
    wish: Wish
    order: AutoscaleOrder
    scale: PlannedScale
    """As for scaling to the wished replicas; its proposal is autoscaling's."""


class AutoscalePlanner:
    """`stabilization_seconds`: how far back a scale-down looks."""

    def __init__(
        self,
        clusters: Clusters,
        workloads: Workloads,
        objects: Objects,
        measurer: Measurer,
        policy: PolicyBook,
        *,
        stabilization_seconds: float,
    ) -> None:
        self._clusters = clusters
        self._workloads = workloads
        self._objects = objects
        self._measurer = measurer
        self._policy = policy
        self._window_seconds = stabilization_seconds

    async def plan(
        self, cluster: Cluster, ref: WorkloadRef, subject: Subject, body: AutoscaleBody, *, reason: str | None
    ) -> PlannedAutoscale:
        """Raises ResourceNotFound and DependencyUnavailable as `gather` and `measure` do, ValidationFailed for what is
        out of policy's ranges, AutoscalerConflict and its like before anything is measured."""
        settings = self._policy.settings
        cooldown = body.scaling_policy.checked(body.trigger, settings.ranges)
        facts = await gather(cluster, self._workloads, self._objects, ref, wanted=0)
        self._refuse_owned(facts, subject, reason)
        thresholds = Thresholds(body.scaling_policy.scale_up_threshold, body.scaling_policy.scale_down_threshold)
        measured = await self._measurer.measure(cluster, facts, body.trigger, body.scaling_policy)
        window = _NO_WINDOW
        if measured.percentage is not None and measured.percentage < thresholds.down:
            window = await self._measurer.window(
                cluster, facts, body.trigger, body.scaling_policy, self._window_seconds
            )
        wished = wish(body.trigger, facts.scale.desired, measured, thresholds, window, maximum=settings.max_replicas)
        facts = msgspec.structs.replace(
            facts, capacity=capacity_for(cluster, facts.workload, facts.scale, wished.replicas)
        )
        decision = plan(facts, subject, settings, replicas=wished.replicas, bounds=None, reason=reason)
        decision = _warned(decision, body, measured, wished)
        order = _order(decision, body, measured, thresholds, wished)
        scale = PlannedScale(facts, decision, _proposal(cluster, facts, decision, subject, order, cooldown, body))
        return PlannedAutoscale(wished, order, scale)

    def _refuse_owned(self, facts: ScaleFacts, subject: Subject, reason: str | None) -> None:
        """Who else holds the replicas is settled before anything is measured."""
        settings = self._policy.settings
        decision = plan(facts, subject, settings, replicas=facts.scale.desired, bounds=None, reason=reason)
        if decision.refusals:
            raise decision.refusals[0]

    async def replan(self, operation: Operation) -> Proposal:
        """The same change as of now, for whoever asked for it: what is approved are the replicas that were shown, so
        the load is not measured again. Raises WorkspaceNotFound, and as `gather` does."""
        order = msgspec.convert(operation.parameters, AutoscaleOrder)
        cluster = self._clusters.find(order.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.workspace_id, cluster.workspace.mode)
        settings = self._policy.settings
        facts = await gather(cluster, self._workloads, self._objects, order.ref, wanted=order.replicas)
        decision = plan(facts, subject, settings, replicas=order.replicas, bounds=None, reason=order.reason)
        body = AutoscaleBody(trigger=order.trigger, current_metrics=order.claimed, scaling_policy=order.policy)
        cooldown = body.scaling_policy.checked(body.trigger, settings.ranges)
        fresh = msgspec.structs.replace(
            order, previous=decision.order.previous, ready_before=decision.order.ready_before
        )
        return _proposal(cluster, facts, decision, subject, fresh, cooldown, body)


def _order(
    decision: Decision, body: AutoscaleBody, measured: Measurement, thresholds: Thresholds, wished: Wish
) -> AutoscaleOrder:
    return AutoscaleOrder(
        **msgspec.structs.asdict(decision.order),
        action=wished.action,
        trigger=body.trigger,
        policy=body.scaling_policy,
        claimed=body.current_metrics,
        measured=MeasuredView(
            value=None if measured.percentage is None else round(measured.percentage, 1),
            target=thresholds.target,
            pods_ready=measured.ready,
            pods_measured=measured.measured,
            source=measured.source or None,
            observed_at=None if measured.observed_at is None else measured.observed_at.replace(microsecond=0),
        ),
        decided=wished.reason,
    )


def _warned(decision: Decision, body: AutoscaleBody, measured: Measurement, wished: Wish) -> Decision:
    figure = measured.percentage
    if body.trigger is Trigger.REQUEST_RATE and figure is not None:
        figure = figure / 100 * measured.ready * body.scaling_policy.per_pod
    claim = disagreement(body.trigger, body.current_metrics.of(body.trigger), figure, measured.source)
    warnings = (*wished.warnings, *([claim] if claim is not None else ()), *decision.warnings)
    return msgspec.structs.replace(decision, warnings=warnings)


def _proposal(
    cluster: Cluster,
    facts: ScaleFacts,
    decision: Decision,
    subject: Subject,
    order: AutoscaleOrder,
    cooldown: float,
    body: AutoscaleBody,
) -> Proposal:
    """Scaling's, under its own name and permission; the figures are shown, and the hash covers what was asked."""
    scaling = proposal_of(cluster, facts, decision, subject, body.confirmation_required)
    shown = {"scaling_action": order.action, "reason": order.decided, "measured": order.measured}
    asked = {"action": order.action, "trigger": order.trigger, "policy": order.policy}
    return msgspec.structs.replace(
        scaling,
        action=ACTION,
        permission=Permission.APPLICATION_WRITE,
        parameters=msgspec.to_builtins(order),
        plan=scaling.plan | msgspec.to_builtins(shown),
        intended=scaling.intended | msgspec.to_builtins(asked),
        ask=msgspec.structs.replace(scaling.ask, action=ACTION, cooldown_seconds=cooldown),
        warnings=decision.warnings,
        reason=order.reason or order.decided,
        nothing_to_do=order.action is ScalingAction.NONE,
    )
