"""What a caller asks of scaling, what it answers, and the plan in between. Pure."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from opsapi.applications.ports import AutoscalerBounds, ScaleState, WorkloadRef
from opsapi.kit.duration import parse_duration
from opsapi.kit.endpoint import Body, Params
from opsapi.kit.errors import OpsError, ValidationFailed
from opsapi.operations.desk import PlanHash, PlannedStep, PlanRefusal
from opsapi.policy.model import ReplicaChange
from opsapi.workspaces.objects import (
    AUTOSCALER,
    DEPLOYMENT,
    STATEFUL_SET,
    CustomObject,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
    ResourceQuota,
    Workload,
)

SCALABLE = (DEPLOYMENT, STATEFUL_SET)
"""What has a scale subresource that we use."""
INT32_MAX = 2**31 - 1
MAX_STABILIZATION_SECONDS = 3600
"""What autoscaling/v2 admits as `stabilizationWindowSeconds`."""
Count = Annotated[int, Meta(ge=0, le=INT32_MAX)]
PositiveCount = Annotated[int, Meta(ge=1, le=INT32_MAX)]


class AutoScaleConfig(Body, frozen=True, kw_only=True):
    """Bounds of a HorizontalPodAutoscaler; it is created where the deployment has none. Where a KEDA ScaledObject owns
    the deployment, its `minReplicaCount` and `maxReplicaCount`.

    `target_cpu_percentage` is of the pods' CPU request (KEDA's targets are its triggers', so there it is refused);
    `scale_down_delay` (`5m`, at most 1h) is `behavior.scaleDown.stabilizationWindowSeconds`. What is left out stays as
    it is.
    """

    min_replicas: PositiveCount
    max_replicas: PositiveCount
    target_cpu_percentage: Annotated[int, Meta(ge=1, le=1000)] | None = None
    scale_down_delay: Annotated[str, Meta(max_length=32)] | None = None

    def bounds(self) -> AutoscalerBounds:
        """Raises ValidationFailed where the fields do not go together."""
        faults: dict[str, str] = {}
        seconds: int | None = None
        if self.min_replicas > self.max_replicas:
            faults["auto_scale_config.min_replicas"] = f"must not exceed max_replicas ({self.max_replicas})"
        if self.scale_down_delay is not None:
            try:
                seconds = round(parse_duration(self.scale_down_delay).total_seconds())
                if seconds > MAX_STABILIZATION_SECONDS:
                    faults["auto_scale_config.scale_down_delay"] = "must be at most 1h"
            except ValueError as error:
                faults["auto_scale_config.scale_down_delay"] = str(error)
        if faults:
            raise ValidationFailed(faults)
        return AutoscalerBounds(self.min_replicas, self.max_replicas, self.target_cpu_percentage, seconds)


class ScaleBody(Body, frozen=True, kw_only=True):
    """`reason` is kept in the audit, the application's changes and the Kubernetes Event. With `plan_hash`, of a dry
    run, exactly that plan is carried out or the answer is `STALE_PLAN`; `confirmation_required` puts it before a
    person in any case."""

    replicas: Count
    reason: Annotated[str, Meta(max_length=1000)] | None = None
    auto_scale_config: AutoScaleConfig | None = None
    dry_run: bool = False
    plan_hash: PlanHash | None = None
    confirmation_required: bool = False


class ScaleParams(Params, frozen=True, kw_only=True):
    """`project`: the namespace, where several hold a deployment of that name."""

    workspace_id: str
    deployment_name: str
    project: str | None = None


class FieldChange(msgspec.Struct, frozen=True):
    field: str
    before: int | None
    after: int | None


class ObjectChange(msgspec.Struct, frozen=True, kw_only=True):
    """One object that the plan writes. `accepted`: the API server's answer to a dry run, null where it was not asked
    (then `reason` says why)."""

    kind: str
    namespace: str
    name: str
    creates: bool
    changes: list[FieldChange]
    accepted: bool | None = None
    reason: str | None = None


class PodsAffected(msgspec.Struct, frozen=True):
    added: int
    removed: int


class BudgetHit(msgspec.Struct, frozen=True, kw_only=True):
    """A PodDisruptionBudget over the pods. Scaling down does not ask it; `violated` says that it would not hold."""

    name: str
    desired_healthy: int
    healthy_after: int
    violated: bool


class QuotaHit(msgspec.Struct, frozen=True, kw_only=True):
    """One limited resource of one ResourceQuota, in its own unit. `fits` null: it cannot be told (`reason`)."""

    quota: str
    resource: str
    hard: str
    used: str
    needed: str
    fits: bool | None
    reason: str | None = None


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the nodes' free requests hold the added pods: `room_for` of `wanted`, counted up to `wanted`. An upper
    bound, since affinity and tolerations are not looked at. Both null where nodes are not observed (`reason`)."""

    wanted: int
    room_for: int | None
    fits: bool | None
    reason: str | None = None


class ScalePlan(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed` is false where `refusals` is not empty; `needs_approval` names the rules for which the call would wait
    for a person. `plan_hash` covers action, parameters, account, uids, generations and the fields to be written."""

    allowed: bool
    refusals: list[PlanRefusal]
    needs_approval: list[str]
    steps: list[PlannedStep]
    objects: list[ObjectChange]
    pods_affected: PodsAffected
    disruption_budgets: list[BudgetHit] | None
    quotas: list[QuotaHit] | None
    capacity: Capacity
    cost_change: None
    plan_hash: str
    plan_expires_at: datetime


class ScaleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: `scaling` (202), `pending_approval` (202, a person decides), `unchanged` (nothing to do) or `planned`
    (dry run)."""

    deployment_name: str
    workspace_id: str
    previous_replicas: int
    new_replicas: int
    status: str
    started_at: datetime | None
    estimated_completion: datetime | None
    project: str | UnsetType = UNSET
    application_id: str | UnsetType = UNSET
    outcome: str | UnsetType = UNSET
    operation_id: str | UnsetType = UNSET
    plan: ScalePlan | UnsetType = UNSET


class ScaleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the decision rests on. What could not be observed is None."""

    ref: WorkloadRef
    application_id: str
    workload: Workload
    scale: ScaleState
    autoscaler: HorizontalPodAutoscaler | None
    scaled_object: CustomObject | None
    """KEDA's, read fresh where `editable`; else as it was last seen."""
    editable: bool = False
    """Whether the ScaledObject could be read with the acting credentials."""
    namespace_labels: dict[str, str]
    quotas: tuple[ResourceQuota, ...] | None
    budgets: tuple[PodDisruptionBudget, ...] | None
    capacity: Capacity


class ScaledBounds(msgspec.Struct, frozen=True):
    """What a KEDA ScaledObject states; None where it leaves a field to KEDA."""

    min_replicas: int | None
    max_replicas: int | None
    stabilization_seconds: int | None


class AutoscalerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the autoscaler is to become. `uid` "" creates it; else `before` is what it was when this was planned (of a
    ScaledObject with KEDA's defaults; `scaled_before` is what it states)."""

    name: str
    uid: str
    wanted: AutoscalerBounds
    before: AutoscalerBounds | None
    kind: str = AUTOSCALER.kind
    scaled_before: ScaledBounds | None = None


class ScaleOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An operation's parameters: everything that its steps need, whatever process they run in. `ready_before` are the
    replicas that were ready when it was planned; `kind` is of what is scaled."""

    workspace_id: str
    namespace: str
    name: str
    uid: str
    previous: int
    replicas: int
    ready_before: int
    autoscaler: AutoscalerOrder | None
    reason: str | None
    kind: str = DEPLOYMENT.kind

    @property
    def ref(self) -> WorkloadRef:
        """Raises StopIteration for a kind that has no scale."""
        kind = next(known for known in SCALABLE if known.kind == self.kind)
        return WorkloadRef(self.workspace_id, kind, self.namespace, self.name, self.uid)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What `plan` found: the order, whether there is anything to do, and each refusal, the first being the answer."""

    order: ScaleOrder
    nothing_to_do: bool
    steps: tuple[str, ...]
    objects: tuple[ObjectChange, ...]
    refusals: tuple[OpsError, ...]
    warnings: tuple[str, ...]
    budgets: tuple[BudgetHit, ...] | None
    quotas: tuple[QuotaHit, ...] | None
    capacity: Capacity
    change: ReplicaChange | None
    """What policy weighs; None where nothing is to be changed."""
