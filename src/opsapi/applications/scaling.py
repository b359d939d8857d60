"""Decides whether and how a deployment is scaled: `plan` is pure, over facts that the endpoint gathers."""

import msgspec

from opsapi.applications.demand import budget_hits, quota_hits
from opsapi.applications.errors import QuotaExceeded
from opsapi.applications.ownership import ownership_refusals
from opsapi.applications.ports import AutoscalerBounds
from opsapi.applications.scaled_objects import effective, scaled_bounds
from opsapi.applications.scaling_model import (
    AutoscalerOrder,
    Capacity,
    Decision,
    FieldChange,
    ObjectChange,
    QuotaHit,
    ScaleFacts,
    ScaleOrder,
)
from opsapi.kit.errors import InvalidState, OpsError, PolicyDenied, PolicyDetails, PolicyRule, StateDetails
from opsapi.policy.model import CapacityRule, PolicySettings, ReplicaChange, Subject
from opsapi.workspaces.objects import AUTOSCALER, SCALED_OBJECT, HorizontalPodAutoscaler

ACTION = "scale"
SET_AUTOSCALER = "set_autoscaler_bounds"
SET_REPLICAS = "set_replicas"
VERIFY = "verify_readiness"
CREATE_AUTOSCALER = "create_autoscaler"
_FIELDS = {
    AUTOSCALER.kind: (
        "spec.minReplicas",
        "spec.maxReplicas",
        "spec.metrics[cpu].target.averageUtilization",
        "spec.behavior.scaleDown.stabilizationWindowSeconds",
    ),
    SCALED_OBJECT.kind: (
        "spec.minReplicaCount",
        "spec.maxReplicaCount",
        "spec.triggers[cpu].metadata.value",
        "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds",
    ),
}
"""Where the fields of AutoscalerBounds stand, in their order."""


def plan(
    facts: ScaleFacts,
    subject: Subject,
    settings: PolicySettings,
    *,
    replicas: int,
    bounds: AutoscalerBounds | None,
    reason: str | None,
) -> Decision:
    """The refusals are in the order in which a caller should learn of them, policy's own not among them (the desk asks
    it); the order is meaningful without them."""
    order = _order(facts, replicas, bounds, reason)
    added = max(0, order.replicas - facts.scale.current)
    removed = max(0, facts.scale.current - order.replicas)
    template = facts.workload.spec.template
    quotas = None if facts.quotas is None else tuple(quota_hits(facts.quotas, template, added))
    budgets = None if facts.budgets is None else tuple(budget_hits(facts.budgets, template, removed))
    objects = _objects(facts, order)
    refusals = ownership_refusals(facts, order, settings, subject)
    if objects:
        refusals += _quota_refusals(quotas) if added else []
        refusals += _capacity_refusals(facts, order, settings)
        refusals += _state(facts, settings)
    return Decision(
        order=order,
        nothing_to_do=not objects,
        steps=_steps(order),
        objects=objects,
        refusals=tuple(refusals),
        warnings=_warnings(facts, order, settings),
        budgets=budgets,
        quotas=quotas,
        capacity=facts.capacity,
        change=_change(facts, order) if objects else None,
    )


def wanted_replicas(replicas: int, bounds: AutoscalerBounds | None) -> int:
    """Within the autoscaler's bounds, where there are any: it would move them there at once anyway."""
    if bounds is None:
        return replicas
    return min(max(replicas, bounds.min_replicas), bounds.max_replicas)


def bounds_of(autoscaler: HorizontalPodAutoscaler) -> AutoscalerBounds:
    """What an HPA is set to, as far as we edit it."""
    spec = autoscaler.spec
    target = next(
        (
            metric.resource.target.average_utilization
            for metric in spec.metrics
            if metric.type == "Resource" and metric.resource is not None and metric.resource.name == "cpu"
        ),
        None,
    )
    down = spec.behavior.scale_down if spec.behavior is not None else None
    return AutoscalerBounds(
        spec.min_replicas, spec.max_replicas, target, down.stabilization_window_seconds if down is not None else None
    )


def fulfils(held: AutoscalerBounds, wanted: AutoscalerBounds) -> bool:
    """Whether everything that `wanted` states is so."""
    return not _bound_changes(held, wanted)


def _order(facts: ScaleFacts, replicas: int, bounds: AutoscalerBounds | None, reason: str | None) -> ScaleOrder:
    ordered = None if bounds is None else _autoscaler_order(facts, bounds)
    return ScaleOrder(
        workspace_id=facts.ref.workspace_id,
        namespace=facts.ref.namespace,
        name=facts.ref.name,
        uid=facts.ref.uid,
        previous=facts.scale.desired,
        replicas=wanted_replicas(replicas, bounds),
        ready_before=facts.workload.status.ready_replicas,
        autoscaler=ordered,
        reason=reason,
        kind=facts.ref.kind.kind,
    )


def _autoscaler_order(facts: ScaleFacts, bounds: AutoscalerBounds) -> AutoscalerOrder:
    """KEDA's ScaledObject comes before the HPA, which is its creature."""
    scaled, autoscaler = facts.scaled_object, facts.autoscaler
    if scaled is not None and facts.editable:
        stated = scaled_bounds(scaled.spec)
        return AutoscalerOrder(
            name=scaled.metadata.name,
            uid=scaled.metadata.uid,
            wanted=bounds,
            before=effective(stated),
            kind=SCALED_OBJECT.kind,
            scaled_before=stated,
        )
    return AutoscalerOrder(
        name=autoscaler.metadata.name if autoscaler is not None else facts.ref.name,
        uid=autoscaler.metadata.uid if autoscaler is not None else "",
        wanted=bounds,
        before=bounds_of(autoscaler) if autoscaler is not None else None,
    )


def _steps(order: ScaleOrder) -> tuple[str, ...]:
    """An existing autoscaler must allow the replicas before they are set; a new one comes last, when they are ready,
    so that nothing has to be undone after it."""
    if order.autoscaler is None:
        return (SET_REPLICAS, VERIFY)
    if order.autoscaler.uid:
        return (SET_AUTOSCALER, SET_REPLICAS, VERIFY)
    return (SET_REPLICAS, VERIFY, CREATE_AUTOSCALER)


def _objects(facts: ScaleFacts, order: ScaleOrder) -> tuple[ObjectChange, ...]:
    """What differs from what is there; empty where there is nothing to do."""
    objects = []
    if order.autoscaler is not None:
        changes = _bound_changes(order.autoscaler.before, order.autoscaler.wanted, _FIELDS[order.autoscaler.kind])
        if changes:
            objects.append(
                ObjectChange(
                    kind=order.autoscaler.kind,
                    namespace=order.namespace,
                    name=order.autoscaler.name,
                    creates=not order.autoscaler.uid,
                    changes=changes,
                )
            )
    if order.replicas != order.previous:
        change = FieldChange("spec.replicas", order.previous, order.replicas)
        objects.append(
            ObjectChange(
                kind=facts.ref.kind.kind,
                namespace=order.namespace,
                name=order.name,
                creates=False,
                changes=[change],
            )
        )
    return tuple(objects)


def _bound_changes(
    before: AutoscalerBounds | None, wanted: AutoscalerBounds, names: tuple[str, ...] = _FIELDS[AUTOSCALER.kind]
) -> list[FieldChange]:
    old = (None,) * len(names) if before is None else msgspec.structs.astuple(before)
    fields = zip(names, old, msgspec.structs.astuple(wanted), strict=True)
    return [FieldChange(name, was, new) for name, was, new in fields if new is not None and new != was]


def _change(facts: ScaleFacts, order: ScaleOrder) -> ReplicaChange:
    before = bounds_of(facts.autoscaler) if facts.autoscaler is not None else None
    if order.autoscaler is not None and order.autoscaler.before is not None:
        before = order.autoscaler.before
    after = order.autoscaler.wanted if order.autoscaler is not None else None
    return ReplicaChange(
        current=order.previous,
        desired=order.replicas,
        min_before=before.min_replicas if before else None,
        max_before=before.max_replicas if before else None,
        min_after=after.min_replicas if after else None,
        max_after=after.max_replicas if after else None,
    )


def _quota_refusals(quotas: tuple[QuotaHit, ...] | None) -> list[OpsError]:
    return [
        QuotaExceeded(quota=hit.quota, resource=hit.resource, hard=hit.hard, used=hit.used, needed=hit.needed)
        for hit in quotas or ()
        if hit.fits is False
    ]


def _capacity_refusals(facts: ScaleFacts, order: ScaleOrder, settings: PolicySettings) -> list[OpsError]:
    held = facts.capacity
    if held.fits is not False or settings.capacity is not CapacityRule.REFUSE:
        return []
    room = order.replicas - held.wanted + (held.room_for or 0)
    details = PolicyDetails(
        rule=PolicyRule.CAPACITY,
        alternatives=[f"scale to at most {room} replicas", "add nodes"],
        limit=room,
        asked=order.replicas,
    )
    return [PolicyDenied(_capacity_words(held), details)]


def _capacity_words(held: Capacity) -> str:
    return f"The nodes' free requests hold {held.room_for} of {held.wanted} more pods"


def _state(facts: ScaleFacts, settings: PolicySettings) -> list[OpsError]:
    refusals: list[OpsError] = []
    label = settings.protected_label
    if "true" in (facts.workload.metadata.labels.get(label), facts.namespace_labels.get(label)):
        details = PolicyDetails(rule=PolicyRule.PROTECTED_LABEL, alternatives=[f"have the label {label} removed"])
        refusals.append(PolicyDenied(f"The label {label} protects {facts.ref.name} from changes", details))
    if facts.workload.metadata.deletion_timestamp is not None:
        details_of_state = StateDetails(resource_id=facts.application_id, state="terminating")
        refusals.append(InvalidState(f"{facts.ref.name} is being deleted", details_of_state))
    return refusals


def _warnings(facts: ScaleFacts, order: ScaleOrder, settings: PolicySettings) -> tuple[str, ...]:
    found = []
    status = facts.workload.status
    if facts.capacity.fits is False and settings.capacity is CapacityRule.WARN:
        found.append(f"{_capacity_words(facts.capacity)}; the others wait until there is room")
    if facts.workload.spec.paused:
        found.append("The deployment's rollout is paused: scaling works, new revisions do not roll out")
    if status.ready_replicas < order.previous:
        found.append(f"Only {status.ready_replicas} of {order.previous} replicas are ready now")
    controller = facts.workload.metadata.controller
    if controller is not None:
        found.append(f"{controller.kind} {controller.name} controls {facts.ref.name} and may change it back")
    return tuple(found)
