"""An in-memory cluster that acts: the Workloads port over deployments and autoscalers that a test sets up.

It keeps what a real API server would insist on: uids, resourceVersions, managedFields, and counts what was written.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from opsapi.applications.errors import TargetGone, WriteConflict, WriteRefused
from opsapi.applications.ports import (
    FIELD_MANAGER,
    AutoscalerBounds,
    ScaleState,
    WorkloadRef,
    WrittenEvent,
)
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.objects import (
    AUTOSCALER,
    DEPLOYMENT,
    AutoscalerSpec,
    Container,
    HorizontalPodAutoscaler,
    ManagedField,
    MetricSpec,
    MetricTarget,
    ObjectMeta,
    PodSpec,
    PodTemplate,
    ResourceMetric,
    Resources,
    ScaleTargetRef,
    ScalingBehavior,
    ScalingRules,
    Workload,
    WorkloadMeta,
    WorkloadSpec,
    WorkloadStatus,
)
from support.inventory import FakeInventory

START = datetime(2024, 1, 20, 12, 0, tzinfo=UTC)
Key = tuple[str, str]


def make_deployment(
    name: str = "web",
    namespace: str = "shop",
    replicas: int = 3,
    *,
    uid: str = "",
    ready: int | None = None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    requests: dict[str, str] | None = None,
    image: str = "nginx:1.27",
    manager: str = "kubectl",
) -> Workload:
    ready = replicas if ready is None else ready
    container = Container(name="app", image=image, resources=Resources(requests=requests or {"cpu": "100m"}))
    return Workload(
        metadata=WorkloadMeta(
            name=name,
            namespace=namespace,
            uid=uid or f"uid-{namespace}-{name}",
            resource_version="10",
            generation=1,
            labels=labels or {},
            annotations=annotations or {},
            managed_fields=(replicas_written(manager, START),),
            creation_timestamp=START,
        ),
        spec=WorkloadSpec(
            replicas=replicas,
            template=PodTemplate(metadata=ObjectMeta(labels={"app": name}), spec=PodSpec(containers=(container,))),
        ),
        status=WorkloadStatus(
            observed_generation=1,
            replicas=replicas,
            ready_replicas=ready,
            available_replicas=ready,
            updated_replicas=replicas,
        ),
    )


def make_autoscaler(
    target: str = "web",
    namespace: str = "shop",
    low: int = 2,
    high: int = 4,
    *,
    cpu: int | None = 80,
    name: str = "",
    meta: WorkloadMeta | None = None,
) -> HorizontalPodAutoscaler:
    name = name or target
    return HorizontalPodAutoscaler(
        metadata=meta
        or WorkloadMeta(name=name, namespace=namespace, uid=f"uid-hpa-{name}", resource_version="20", generation=1),
        spec=_spec(target, AutoscalerBounds(low, high, cpu), None),
    )


def replicas_written(manager: str, at: datetime, subresource: str = "") -> ManagedField:
    fields = msgspec.Raw(b'{"f:spec":{"f:replicas":{}}}')
    return ManagedField(manager=manager, operation="Update", subresource=subresource, time=at, fields_v1=fields)


def _spec(target: str, bounds: AutoscalerBounds, held: AutoscalerSpec | None) -> AutoscalerSpec:
    metrics = held.metrics if held is not None else ()
    if bounds.target_cpu_percentage is not None:
        use = MetricTarget(type="Utilization", average_utilization=bounds.target_cpu_percentage)
        metrics = (MetricSpec(type="Resource", resource=ResourceMetric(name="cpu", target=use)),)
    behavior = held.behavior if held is not None else None
    if bounds.scale_down_stabilization_seconds is not None:
        down = ScalingRules(stabilization_window_seconds=bounds.scale_down_stabilization_seconds)
        behavior = ScalingBehavior(scale_down=down)
    return AutoscalerSpec(
        scale_target_ref=ScaleTargetRef(kind="Deployment", name=target, api_version="apps/v1"),
        min_replicas=bounds.min_replicas,
        max_replicas=bounds.max_replicas,
        metrics=metrics,
        behavior=behavior,
    )


class FakeWorkloads:
    """Implements Workloads. `settle` (the default) makes pods ready at once; without it a test calls `set_status`.

    `away` makes every call fail as a cluster that does not answer; `before` runs before each write and may change
    things or raise; `refuse` are the reasons with which writes are refused.
    """

    def __init__(self, inventory: FakeInventory | None = None) -> None:
        self.inventory = inventory
        self.deployments: dict[Key, Workload] = {}
        self.autoscalers: dict[Key, HorizontalPodAutoscaler] = {}
        self.writes: list[tuple[str, int]] = []
        """(name, replicas) of each write of a scale that was kept."""
        self.autoscaler_writes: list[tuple[str, AutoscalerBounds]] = []
        self.dry_runs = 0
        self.events: dict[str, WrittenEvent] = {}
        self.settle = True
        self.away = False
        self.refuse = ""
        self.refuse_events = False
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        """Runs after each write was kept: raising here is an answer that got lost."""
        self._version = 100
        self._made_by: dict[str, str] = {}

    def put(self, *objects: Workload | HorizontalPodAutoscaler) -> None:
        """As somebody else's write would: into the cluster and, where there is one, its inventory."""
        for held in objects:
            key = (held.metadata.namespace, held.metadata.name)
            if isinstance(held, Workload):
                self.deployments[key] = held
            else:
                self.autoscalers[key] = held
            if self.inventory is not None:
                self.inventory.put(DEPLOYMENT if isinstance(held, Workload) else AUTOSCALER, held)

    def replace(self, name: str = "web", namespace: str = "shop", *, replicas: int, manager: str = "kubectl") -> None:
        """Somebody else sets the replicas."""
        self._set(self.deployments[(namespace, name)], replicas, manager)

    def set_status(self, name: str = "web", namespace: str = "shop", *, ready: int) -> None:
        held = self.deployments[(namespace, name)]
        replicas = held.spec.replicas or 0
        status = msgspec.structs.replace(
            held.status,
            observed_generation=held.metadata.generation,
            replicas=replicas,
            ready_replicas=ready,
            available_replicas=ready,
        )
        self.put(msgspec.structs.replace(held, status=status, metadata=self._touched(held.metadata)))

    def remove(self, name: str = "web", namespace: str = "shop") -> None:
        del self.deployments[(namespace, name)]
        if self.inventory is not None:
            self.inventory.remove(DEPLOYMENT, namespace, name)

    def replicas(self, name: str = "web", namespace: str = "shop") -> int | None:
        return self.deployments[(namespace, name)].spec.replicas

    async def read_workload(self, ref: WorkloadRef) -> Workload:
        self._answer(ref)
        held = self.deployments.get((ref.namespace, ref.name))
        if held is None:
            raise TargetGone
        if held.metadata.uid != ref.uid:
            raise WriteConflict
        return held

    async def read_scale(self, ref: WorkloadRef) -> ScaleState:
        held = await self.read_workload(ref)
        return _scale(held)

    async def write_scale(
        self, ref: WorkloadRef, replicas: int, *, resource_version: str, dry_run: bool = False
    ) -> ScaleState:
        if not dry_run:
            self.before("write_scale")
        held = await self.read_workload(ref)
        if held.metadata.resource_version != resource_version:
            raise WriteConflict
        self._permit()
        if dry_run:
            self.dry_runs += 1
            return msgspec.structs.replace(_scale(held), desired=replicas)
        self.writes.append((ref.name, replicas))
        written = _scale(self._set(held, replicas, FIELD_MANAGER, "scale"))
        self.after("write_scale")
        return written

    async def find_autoscaler(self, ref: WorkloadRef) -> HorizontalPodAutoscaler | None:
        self._answer(ref)
        for (namespace, _), held in self.autoscalers.items():
            target = held.spec.scale_target_ref
            if namespace == ref.namespace and (target.kind, target.name) == (ref.kind.kind, ref.name):
                return held
        return None

    async def write_autoscaler(
        self,
        ref: WorkloadRef,
        bounds: AutoscalerBounds,
        *,
        existing: HorizontalPodAutoscaler | None,
        operation_id: str,
        dry_run: bool = False,
    ) -> HorizontalPodAutoscaler:
        if not dry_run:
            self.before("write_autoscaler")
        self._answer(ref)
        self._permit()
        key = (ref.namespace, existing.metadata.name if existing is not None else ref.name)
        held = self.autoscalers.get(key)
        if existing is None and held is not None:
            if not dry_run and self._made_by.get(held.metadata.uid) == operation_id:
                return held
            raise WriteConflict
        if existing is not None and (
            held is None or held.metadata.resource_version != existing.metadata.resource_version
        ):
            raise WriteConflict
        meta = (
            self._touched(held.metadata)
            if held is not None
            else WorkloadMeta(
                name=key[1], namespace=key[0], uid=f"uid-hpa-{key[1]}", resource_version="1", generation=1
            )
        )
        spec = _spec(ref.name, bounds, held.spec if held is not None else None)
        written = HorizontalPodAutoscaler(metadata=meta, spec=spec)
        if dry_run:
            self.dry_runs += 1
            return written
        self._made_by[meta.uid] = operation_id
        self.autoscaler_writes.append((key[1], bounds))
        self.put(written)
        return written

    async def write_event(self, ref: WorkloadRef, event: WrittenEvent, *, operation_id: str, at: datetime) -> None:
        self._answer(ref)
        if self.refuse_events:
            raise WriteRefused("Forbidden", "events is forbidden", 403)
        self.events[f"{ref.name}.{operation_id}"] = event

    def _answer(self, ref: WorkloadRef) -> None:
        if self.away:
            raise DependencyUnavailable("kubernetes_api", "connection refused", workspace_id=ref.workspace_id)

    def _permit(self) -> None:
        if self.refuse:
            raise WriteRefused(self.refuse, "admission webhook denied the request", 403)

    def _touched(self, meta: WorkloadMeta, *, generation: int = 0) -> WorkloadMeta:
        self._version += 1
        return msgspec.structs.replace(
            meta, resource_version=str(self._version), generation=meta.generation + generation
        )

    def _set(self, held: Workload, replicas: int, manager: str, subresource: str = "") -> Workload:
        meta = self._touched(held.metadata, generation=1)
        others = tuple(m for m in meta.managed_fields if m.fields_v1 != replicas_written("", START).fields_v1)
        at = START.replace(microsecond=0)
        meta = msgspec.structs.replace(meta, managed_fields=(*others, replicas_written(manager, at, subresource)))
        changed = msgspec.structs.replace(
            held, metadata=meta, spec=msgspec.structs.replace(held.spec, replicas=replicas)
        )
        self.put(changed)
        if self.settle:
            self.set_status(held.metadata.name, held.metadata.namespace, ready=replicas)
        return self.deployments[(held.metadata.namespace, held.metadata.name)]


def _scale(held: Workload) -> ScaleState:
    desired = held.spec.replicas or 0
    return ScaleState(held.metadata.uid, held.metadata.resource_version, desired, held.status.replicas)
