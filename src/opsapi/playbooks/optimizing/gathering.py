"""Looks at applications: what their containers request, what they used, and whether we may change it."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from opsapi.applications.costs import CostSettings
from opsapi.applications.measuring import running_pods, selector_of
from opsapi.applications.ownership import manager_of
from opsapi.applications.ports import WorkloadRef
from opsapi.kit.errors import (
    DependencyUnavailable,
    InvalidState,
    OpsError,
    PolicyDenied,
    PolicyDetails,
    PolicyRule,
    StateDetails,
)
from opsapi.playbooks.components import Component
from opsapi.playbooks.optimizing.model import (
    RESOURCES,
    AppOrder,
    ContainerOrder,
    Found,
    OptimizingSettings,
    Row,
)
from opsapi.playbooks.optimizing.patches import yaml_patch
from opsapi.playbooks.optimizing.recommending import (
    LEAST_POINTS,
    oom_limits,
    recommend,
    steered_by,
    used,
)
from opsapi.policy.model import PolicySettings
from opsapi.telemetry.model import Answer, Observed, Span, Unobserved, UsageHistory
from opsapi.telemetry.ports import Metrics
from opsapi.workspaces.objects import (
    AUTOSCALER,
    DAEMON_SET,
    DEPLOYMENT,
    NAMESPACE,
    STATEFUL_SET,
    HorizontalPodAutoscaler,
    Namespace,
    Workload,
)
from opsapi.workspaces.ports import Cluster
from opsapi.workspaces.writing import ObjectKey, Objects, TargetGone, WriteConflict, WriteRefused

STEP = timedelta(minutes=1)
_AT_ONCE = 8
"""Applications whose history is asked for at the same time."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """`order` is None where nothing is to be changed; `refusal` is what a call for this application alone is answered
    where it may not be. `recreates`: its pods all go at once."""

    found: Found
    order: AppOrder | None = None
    refusal: OpsError | None = None
    recreates: bool = False


class Gatherer:
    def __init__(self, objects: Objects, metrics: Metrics, costs: CostSettings, settings: OptimizingSettings) -> None:
        self._objects = objects
        self._metrics = metrics
        self._costs = costs
        self._settings = settings

    async def look_at_all(
        self, cluster: Cluster, policy: PolicySettings, components: Sequence[Component]
    ) -> list[Look]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def look(component: Component) -> Look | None:
            async with turns:
                return await self.look(cluster, policy, component)

        found = await asyncio.gather(*map(look, components))
        return [one for one in found if one is not None]

    async def look(self, cluster: Cluster, policy: PolicySettings, component: Component) -> Look | None:
        """None where it is no more. Raises DependencyUnavailable where the cluster does not answer."""
        meta = component.meta
        cached = cluster.inventory.get(component.kind, Workload, meta.namespace, meta.name)
        if cached is None:
            return None
        answer = await self._history(cluster, component, cached)
        if not any(row.changes for row in self._rows(cluster, component, cached, answer)):
            return self._judged(cluster, policy, component, cached, answer)
        fresh = await self.fresh(component.workspace_id, component)
        return None if fresh is None else self._judged(cluster, policy, component, fresh, answer)

    async def fresh(self, workspace_id: str, component: Component) -> Workload | None:
        meta = component.meta
        key = ObjectKey(workspace_id, RESOURCES[component.kind.kind], meta.namespace, meta.name, meta.uid)
        return await self.read(key)

    async def read(self, key: ObjectKey) -> Workload | None:
        """None where it was deleted or replaced."""
        try:
            held = await self._objects.get(key)
        except (TargetGone, WriteConflict):
            return None
        except WriteRefused as error:
            reason = f"the acting credentials may not read {key.resource} ({error.reason})"
            raise DependencyUnavailable("kubernetes_api", reason, workspace_id=key.workspace_id) from error
        return msgspec.json.decode(msgspec.json.encode(held), type=Workload)

    async def _history(self, cluster: Cluster, component: Component, held: Workload) -> Answer[UsageHistory]:
        ref = WorkloadRef(component.workspace_id, component.kind, held.metadata.namespace, held.metadata.name, "")
        pods = running_pods(cluster.inventory, msgspec.structs.replace(ref, uid=held.metadata.uid))
        selector = selector_of(cluster.inventory, ref, held.spec.template, pods)
        span = Span.ending(cluster.inventory.now(), timedelta(hours=self._settings.history_hours), STEP)
        return await self._metrics.usage_history(component.workspace_id, selector, span)

    def _rows(
        self, cluster: Cluster, component: Component, held: Workload, answer: Answer[UsageHistory]
    ) -> tuple[Row, ...]:
        meta = held.metadata
        ref = WorkloadRef(component.workspace_id, component.kind, meta.namespace, meta.name, meta.uid)
        unknown = steered_by(_autoscaler(cluster, ref))
        kills = oom_limits(running_pods(cluster.inventory, ref))
        series = {}
        if isinstance(answer, Observed):
            series = answer.figures.by_container()
        else:
            unknown = dict.fromkeys(("cpu", "memory"), answer.reason) | unknown
        rows = []
        for container in held.spec.template.spec.containers:
            cpu, memory = used(series.get(container.name, ()), STEP)
            rows.append(
                recommend(
                    container,
                    cpu,
                    memory,
                    unknown=unknown,
                    oom_limit=kills.get(container.name),
                    replicas=replicas_of(component, held),
                    costs=self._costs,
                    change_percentage=self._settings.change_percentage,
                )
            )
        return tuple(rows)

    def _judged(
        self,
        cluster: Cluster,
        policy: PolicySettings,
        component: Component,
        held: Workload,
        answer: Answer[UsageHistory],
    ) -> Look:
        rows = self._rows(cluster, component, held, answer)
        orders = tuple(
            ContainerOrder(name=r.container, before=r.current, after=r.recommended) for r in rows if r.changes
        )
        found = Found(
            application_id=component.id,
            application=component.place,
            replicas=replicas_of(component, held),
            source=None if isinstance(answer, Unobserved) else answer.source,
            containers=rows,
            savings=round(sum(row.savings or 0 for row in rows), 2),
        )
        if not orders:
            return Look(found=msgspec.structs.replace(found, why_not=_nothing(rows)))
        order = AppOrder(
            application_id=component.id,
            kind=component.kind.kind,
            namespace=held.metadata.namespace,
            name=held.metadata.name,
            uid=held.metadata.uid,
            generation=held.metadata.generation,
            replicas=found.replicas,
            containers=orders,
        )
        return self._weighed(cluster, policy, component, held, found, order)

    def _weighed(
        self,
        cluster: Cluster,
        policy: PolicySettings,
        component: Component,
        held: Workload,
        found: Found,
        order: AppOrder,
    ) -> Look:
        killed = any(row.oom_killed for row in found.containers)
        manager = manager_of(held.metadata)
        if manager is not None:
            found = msgspec.structs.replace(
                found, why_not=f"{manager[0]} ({manager[1]}) would revert it", patch=yaml_patch(order)
            )
        refusal = _refusal(cluster, policy, component, held, killed)
        if refusal is not None:
            found = msgspec.structs.replace(found, why_not=refusal.message)
        recreates = component.kind == DEPLOYMENT and held.spec.strategy.type == "Recreate"
        return Look(found=found, order=order, refusal=refusal, recreates=recreates)


def replicas_of(component: Component, held: Workload) -> int:
    if component.kind == DAEMON_SET:
        return held.status.desired_number_scheduled
    return 1 if held.spec.replicas is None else held.spec.replicas


def _ready(component: Component, held: Workload) -> int:
    return held.status.number_ready if component.kind == DAEMON_SET else held.status.ready_replicas


def _autoscaler(cluster: Cluster, ref: WorkloadRef) -> HorizontalPodAutoscaler | None:
    for held in cluster.inventory.all(AUTOSCALER, HorizontalPodAutoscaler, ref.namespace):
        target = held.spec.scale_target_ref
        if (target.kind, target.name) == (ref.kind.kind, ref.name):
            return held
    return None


def _nothing(rows: Sequence[Row]) -> str:
    if rows and all(len(row.unknown) == len(("cpu", "memory")) for row in rows):
        return f"nothing is known well enough: {next(iter(rows[0].unknown.values()))}"
    return "what it requests fits what it used" if rows else f"it has no containers with {LEAST_POINTS} readings"


def _refusal(
    cluster: Cluster, policy: PolicySettings, component: Component, held: Workload, killed: bool
) -> OpsError | None:
    """What stands against changing it whoever asks; GitOps apart, which policy may waive."""
    name, meta = held.metadata.name, held.metadata
    namespace = cluster.inventory.get(NAMESPACE, Namespace, "", meta.namespace)
    label = policy.protected_label
    labels = namespace.metadata.labels if namespace is not None else {}
    if "true" in (meta.labels.get(label), labels.get(label)):
        details = PolicyDetails(rule=PolicyRule.PROTECTED_LABEL, alternatives=[f"have the label {label} removed"])
        return PolicyDenied(f"The label {label} protects {name} from changes", details)
    state, why = _state(component, held, killed)
    return None if not state else InvalidState(why, StateDetails(resource_id=component.id, state=state))


def _state(component: Component, held: Workload, killed: bool) -> tuple[str, str]:
    """(state, why a rollout of it could not be verified), empty where it could."""
    name, desired, ready = held.metadata.name, replicas_of(component, held), _ready(component, held)
    if held.metadata.deletion_timestamp is not None:
        return "terminating", f"{name} is being deleted"
    if held.spec.paused:
        return "paused", f"The rollout of {name} is paused"
    on_delete = held.spec.update_strategy.type == "OnDelete" and component.kind in (STATEFUL_SET, DAEMON_SET)
    if on_delete:
        return "on_delete", f"{name} replaces its pods only when they are deleted (OnDelete)"
    if desired == 0:
        return "stopped", f"{name} runs no pods"
    if ready < desired and not killed:
        return "degraded", f"Only {ready} of {desired} pods of {name} are ready: heal it first"
    return "", ""
