"""Kubernetes' objects as the product sees them: only the fields that it uses, decoded straight from the API's JSON.

Unknown fields are skipped while decoding, so a 4 KB pod costs a few hundred bytes. Every Struct is frozen: the cache
hands out the same instance to every reader. Field names are the API's in snake case.

It is longer than other files because it is one catalogue: the kinds refer to each other's parts.
"""

from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType


class KubernetesObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False, omit_defaults=True):
    """Base of every projection."""


class OwnerReference(KubernetesObject, frozen=True):
    kind: str
    name: str
    uid: str
    api_version: str = ""
    controller: bool = False


class ManagedField(KubernetesObject, frozen=True):
    """Who wrote which fields last; `fields_v1` stays undecoded until a change is attributed."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    time: datetime | None = None
    fields_v1: msgspec.Raw | UnsetType = msgspec.field(default=UNSET, name="fieldsV1")


class ObjectMeta(KubernetesObject, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def controller(self) -> OwnerReference | None:
        for owner in self.owner_references:
            if owner.controller:
                return owner
        return None


class WorkloadMeta(ObjectMeta, frozen=True):
    """Workloads also keep annotations (who manages them) and managed fields (who changed them)."""

    annotations: dict[str, str] = {}
    managed_fields: tuple[ManagedField, ...] = ()


class ObjectReference(KubernetesObject, frozen=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class LabelRequirement(KubernetesObject, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(KubernetesObject, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelRequirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Kubernetes' semantics; an empty selector matches everything."""
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        return all(_meets(requirement, labels) for requirement in self.match_expressions)


def _meets(requirement: LabelRequirement, labels: dict[str, str]) -> bool:
    present = requirement.key in labels
    match requirement.operator:
        case "In":
            return present and labels[requirement.key] in requirement.values
        case "NotIn":
            return not present or labels[requirement.key] not in requirement.values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case _:
            return False


class Present(KubernetesObject, frozen=True):
    """A nested object of which only the presence matters."""


class Resources(KubernetesObject, frozen=True):
    """Quantities as written, by resource name (`cpu`, `memory`, …)."""

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class Container(KubernetesObject, frozen=True):
    name: str
    image: str = ""
    resources: Resources = Resources()
    readiness_probe: Present | None = None
    liveness_probe: Present | None = None
    startup_probe: Present | None = None
    restart_policy: str = ""
    """`Always` on an init container makes it a sidecar."""


class SchedulingGate(KubernetesObject, frozen=True):
    name: str


class PodSpec(KubernetesObject, frozen=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Container, ...] = ()
    node_name: str = ""
    restart_policy: str = "Always"
    scheduling_gates: tuple[SchedulingGate, ...] = ()


class Condition(KubernetesObject, frozen=True):
    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    last_heartbeat_time: datetime | None = None


class Waiting(KubernetesObject, frozen=True):
    reason: str = ""
    message: str = ""


class Running(KubernetesObject, frozen=True):
    started_at: datetime | None = None


class Terminated(KubernetesObject, frozen=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(KubernetesObject, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(KubernetesObject, frozen=True):
    name: str
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(KubernetesObject, frozen=True):
    phase: str = "Unknown"
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    start_time: datetime | None = None
    pod_ip: str = msgspec.field(default="", name="podIP")
    qos_class: str = msgspec.field(default="", name="qosClass")


class Pod(KubernetesObject, frozen=True):
    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodTemplate(KubernetesObject, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


class Strategy(KubernetesObject, frozen=True):
    type: str = ""


class WorkloadSpec(KubernetesObject, frozen=True):
    """Deployment, StatefulSet, DaemonSet and ReplicaSet share it; `replicas` is None for DaemonSets."""

    replicas: int | None = None
    paused: bool = False
    selector: LabelSelector | None = None
    strategy: Strategy = Strategy()
    update_strategy: Strategy = Strategy()
    template: PodTemplate = PodTemplate()


class WorkloadStatus(KubernetesObject, frozen=True):
    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    updated_replicas: int = 0
    unavailable_replicas: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0
    number_available: int = 0
    updated_number_scheduled: int = 0
    conditions: tuple[Condition, ...] = ()


class Workload(KubernetesObject, frozen=True):
    """A Deployment, StatefulSet, DaemonSet or ReplicaSet. Which one, the cache's kind says."""

    metadata: WorkloadMeta
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()


class JobSpec(KubernetesObject, frozen=True):
    completions: int | None = None
    parallelism: int | None = None
    suspend: bool = False


class JobStatus(KubernetesObject, frozen=True):
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: datetime | None = None
    completion_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()


class Job(KubernetesObject, frozen=True):
    metadata: ObjectMeta
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class JobTemplateSpec(KubernetesObject, frozen=True):
    template: PodTemplate = PodTemplate()


class JobTemplate(KubernetesObject, frozen=True):
    spec: JobTemplateSpec = JobTemplateSpec()


class CronJobSpec(KubernetesObject, frozen=True):
    schedule: str = ""
    suspend: bool = False
    job_template: JobTemplate = JobTemplate()


class CronJobStatus(KubernetesObject, frozen=True):
    active: tuple[ObjectReference, ...] = ()
    last_schedule_time: datetime | None = None
    last_successful_time: datetime | None = None


class CronJob(KubernetesObject, frozen=True):
    metadata: WorkloadMeta
    spec: CronJobSpec = CronJobSpec()
    status: CronJobStatus = CronJobStatus()


class ServicePort(KubernetesObject, frozen=True):
    port: int
    name: str = ""
    target_port: int | str | None = None
    protocol: str = "TCP"


class ServiceSpec(KubernetesObject, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()


class Service(KubernetesObject, frozen=True):
    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()


class Taint(KubernetesObject, frozen=True):
    key: str
    effect: str = ""
    value: str = ""


class NodeSpec(KubernetesObject, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeInfo(KubernetesObject, frozen=True):
    kubelet_version: str = ""


class NodeStatus(KubernetesObject, frozen=True):
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()
    node_info: NodeInfo = NodeInfo()


class Node(KubernetesObject, frozen=True):
    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class NamespaceStatus(KubernetesObject, frozen=True):
    phase: str = "Active"


class Namespace(KubernetesObject, frozen=True):
    metadata: ObjectMeta
    status: NamespaceStatus = NamespaceStatus()


class ScaleTargetRef(KubernetesObject, frozen=True):
    kind: str
    name: str
    api_version: str = ""


class MetricTarget(KubernetesObject, frozen=True):
    type: str = ""
    average_utilization: int | None = None
    average_value: str | None = None
    value: str | None = None


class ResourceMetric(KubernetesObject, frozen=True):
    name: str = ""
    target: MetricTarget = MetricTarget()


class MetricSpec(KubernetesObject, frozen=True):
    type: str = ""
    resource: ResourceMetric | None = None
    container_resource: ResourceMetric | None = None


class ScalingRules(KubernetesObject, frozen=True):
    stabilization_window_seconds: int | None = None


class ScalingBehavior(KubernetesObject, frozen=True):
    scale_up: ScalingRules | None = None
    scale_down: ScalingRules | None = None


class AutoscalerSpec(KubernetesObject, frozen=True):
    scale_target_ref: ScaleTargetRef
    min_replicas: int = 1
    max_replicas: int = 0
    metrics: tuple[MetricSpec, ...] = ()
    behavior: ScalingBehavior | None = None


class AutoscalerStatus(KubernetesObject, frozen=True):
    current_replicas: int = 0
    desired_replicas: int = 0
    last_scale_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()


class HorizontalPodAutoscaler(KubernetesObject, frozen=True):
    """autoscaling/v2."""

    metadata: WorkloadMeta
    spec: AutoscalerSpec
    status: AutoscalerStatus = AutoscalerStatus()


class DisruptionBudgetSpec(KubernetesObject, frozen=True):
    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: LabelSelector | None = None


class DisruptionBudgetStatus(KubernetesObject, frozen=True):
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0


class PodDisruptionBudget(KubernetesObject, frozen=True):
    metadata: ObjectMeta
    spec: DisruptionBudgetSpec = DisruptionBudgetSpec()
    status: DisruptionBudgetStatus = DisruptionBudgetStatus()


class ResourceQuotaSpec(KubernetesObject, frozen=True):
    hard: dict[str, str] = {}
    scopes: tuple[str, ...] = ()
    scope_selector: Present | None = None

    @property
    def is_scoped(self) -> bool:
        """Whether it counts only some of the namespace's pods."""
        return bool(self.scopes) or self.scope_selector is not None


class ResourceQuotaStatus(KubernetesObject, frozen=True):
    hard: dict[str, str] = {}
    used: dict[str, str] = {}


class ResourceQuota(KubernetesObject, frozen=True):
    metadata: ObjectMeta
    spec: ResourceQuotaSpec = ResourceQuotaSpec()
    status: ResourceQuotaStatus = ResourceQuotaStatus()


class ClaimSpec(KubernetesObject, frozen=True):
    storage_class_name: str | None = None
    volume_name: str = ""
    resources: Resources = Resources()


class ClaimStatus(KubernetesObject, frozen=True):
    phase: str = "Pending"
    capacity: dict[str, str] = {}


class PersistentVolumeClaim(KubernetesObject, frozen=True):
    metadata: ObjectMeta
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class EventSeries(KubernetesObject, frozen=True):
    count: int = 0
    last_observed_time: datetime | None = None


class Event(KubernetesObject, frozen=True):
    """core/v1; newer reporters fill `event_time` and `series` and leave the classic fields empty."""

    metadata: ObjectMeta
    involved_object: ObjectReference = ObjectReference()
    type: str = "Normal"
    reason: str = ""
    message: str = ""
    count: int | None = None
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: EventSeries | None = None

    @property
    def seen_at(self) -> datetime | None:
        series = self.series.last_observed_time if self.series else None
        return series or self.last_timestamp or self.event_time or self.metadata.creation_timestamp


class CustomObject(KubernetesObject, frozen=True):
    """An object of an optional API group (KEDA, Knative, Fission, Tekton); spec and status undecoded beyond JSON."""

    metadata: WorkloadMeta
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


AnyObject = (
    Pod
    | Workload
    | Job
    | CronJob
    | Service
    | Node
    | Namespace
    | HorizontalPodAutoscaler
    | PodDisruptionBudget
    | ResourceQuota
    | PersistentVolumeClaim
    | Event
    | CustomObject
)
ObjectT = TypeVar("ObjectT", bound=KubernetesObject)


class Kind(msgspec.Struct, frozen=True):
    """A kind that the cache can hold. `resource` is the plural; `struct` what an item decodes into."""

    group: str
    version: str
    kind: str
    resource: str
    namespaced: bool
    struct: type[KubernetesObject]
    optional: bool = False
    """Served only where an add-on is installed; where it is not, that is a fact, not a fault."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


POD = Kind("", "v1", "Pod", "pods", True, Pod)
NODE = Kind("", "v1", "Node", "nodes", False, Node)
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", False, Namespace)
SERVICE = Kind("", "v1", "Service", "services", True, Service)
EVENT = Kind("", "v1", "Event", "events", True, Event)
RESOURCE_QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas", True, ResourceQuota)
CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, PersistentVolumeClaim)
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", True, Workload)
REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets", True, Workload)
STATEFUL_SET = Kind("apps", "v1", "StatefulSet", "statefulsets", True, Workload)
DAEMON_SET = Kind("apps", "v1", "DaemonSet", "daemonsets", True, Workload)
JOB = Kind("batch", "v1", "Job", "jobs", True, Job)
CRON_JOB = Kind("batch", "v1", "CronJob", "cronjobs", True, CronJob)
AUTOSCALER = Kind(
    "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, HorizontalPodAutoscaler
)
DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, PodDisruptionBudget)
SCALED_OBJECT = Kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", True, CustomObject, optional=True)
KNATIVE_SERVICE = Kind("serving.knative.dev", "v1", "Service", "services", True, CustomObject, optional=True)
FISSION_FUNCTION = Kind("fission.io", "v1", "Function", "functions", True, CustomObject, optional=True)
TEKTON_PIPELINE = Kind("tekton.dev", "v1", "Pipeline", "pipelines", True, CustomObject, optional=True)
TEKTON_PIPELINE_RUN = Kind("tekton.dev", "v1", "PipelineRun", "pipelineruns", True, CustomObject, optional=True)

KINDS = (
    POD, NODE, NAMESPACE, SERVICE, EVENT, RESOURCE_QUOTA, CLAIM, DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET,
    JOB, CRON_JOB, AUTOSCALER, DISRUPTION_BUDGET, SCALED_OBJECT, KNATIVE_SERVICE, FISSION_FUNCTION, TEKTON_PIPELINE,
    TEKTON_PIPELINE_RUN,
)  # fmt: skip
"""What a workspace's cache follows."""
APPLICATION_KINDS = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, CRON_JOB)
