"""Makes Kubernetes objects for tests, shaped as a real control plane writes them."""

from datetime import UTC, datetime
from typing import Any

from opsapi.workspaces.objects import (
    Condition,
    Container,
    ContainerState,
    ContainerStatus,
    CronJob,
    CronJobSpec,
    Event,
    Job,
    JobSpec,
    JobStatus,
    LabelSelector,
    Namespace,
    NamespaceStatus,
    Node,
    NodeInfo,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    ObjectReference,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
    PodTemplate,
    Present,
    Resources,
    Running,
    Service,
    ServicePort,
    ServiceSpec,
    Strategy,
    Taint,
    Terminated,
    Waiting,
    Workload,
    WorkloadMeta,
    WorkloadSpec,
    WorkloadStatus,
)

CREATED = datetime(2024, 1, 1, tzinfo=UTC)


def owner(kind: str, name: str, uid: str) -> OwnerReference:
    return OwnerReference(kind=kind, name=name, uid=uid, controller=True)


def meta(name: str, namespace: str = "shop", uid: str = "", **more: Any) -> ObjectMeta:
    controller = more.pop("controlled_by", None)
    return ObjectMeta(
        name=name,
        namespace=namespace,
        uid=uid or f"uid-{namespace}-{name}",
        creation_timestamp=more.pop("created", CREATED),
        owner_references=(controller,) if controller is not None else (),
        **more,
    )


def workload_meta(name: str, namespace: str = "shop", uid: str = "", **more: Any) -> WorkloadMeta:
    controller = more.pop("controlled_by", None)
    return WorkloadMeta(
        name=name,
        namespace=namespace,
        uid=uid or f"uid-{namespace}-{name}",
        creation_timestamp=more.pop("created", CREATED),
        generation=1,
        owner_references=(controller,) if controller is not None else (),
        **more,
    )


def container(
    name: str = "main",
    image: str = "nginx:1.21.6",
    *,
    requests: dict[str, str] | None = None,
    limits: dict[str, str] | None = None,
    probes: bool = False,
    **more: Any,
) -> Container:
    return Container(
        name=name,
        image=image,
        resources=Resources(requests=requests or {}, limits=limits or {}),
        readiness_probe=Present() if probes else None,
        liveness_probe=Present() if probes else None,
        **more,
    )


def pod(
    name: str,
    namespace: str = "shop",
    *,
    controlled_by: OwnerReference | None = None,
    phase: str = "Running",
    ready: bool = True,
    node: str = "worker-1",
    containers: tuple[Container, ...] = (),
    waiting: str = "",
    last: Terminated | None = None,
    restarts: int = 0,
    conditions: tuple[Condition, ...] = (),
    **more: Any,
) -> Pod:
    held = containers or (container(),)
    state = ContainerState(waiting=Waiting(reason=waiting)) if waiting else ContainerState(running=Running(CREATED))
    running = phase == "Running" and not waiting
    statuses = tuple(
        ContainerStatus(
            name=one.name,
            ready=ready and running,
            started=running,
            restart_count=restarts,
            state=state,
            last_state=ContainerState(terminated=last),
        )
        for one in held
    )
    readiness = Condition(type="Ready", status="True" if ready and running else "False")
    return Pod(
        metadata=meta(name, namespace, controlled_by=controlled_by, **more),
        spec=PodSpec(containers=held, node_name=node),
        status=PodStatus(phase=phase, conditions=(readiness, *conditions), container_statuses=statuses),
    )


def deployment(
    name: str, namespace: str = "shop", *, replicas: int = 3, ready: int | None = None, **more: Any
) -> Workload:
    reached = replicas if ready is None else ready
    conditions = more.pop("conditions", ())
    containers = more.pop("containers", None) or (container(),)
    labels = {"app": name}
    return Workload(
        metadata=workload_meta(name, namespace, **more),
        spec=WorkloadSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels=labels),
            strategy=Strategy(type="RollingUpdate"),
            template=PodTemplate(metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=containers)),
        ),
        status=WorkloadStatus(
            observed_generation=1,
            replicas=replicas,
            ready_replicas=reached,
            available_replicas=reached,
            updated_replicas=replicas,
            conditions=conditions,
        ),
    )


def replica_set(name: str, namespace: str = "shop", *, controlled_by: OwnerReference | None = None) -> Workload:
    return Workload(metadata=workload_meta(name, namespace, controlled_by=controlled_by))


def daemon_set(name: str, namespace: str = "shop", *, desired: int = 2, ready: int = 2) -> Workload:
    return Workload(
        metadata=workload_meta(name, namespace),
        status=WorkloadStatus(
            observed_generation=1,
            desired_number_scheduled=desired,
            number_ready=ready,
            number_available=ready,
            updated_number_scheduled=desired,
        ),
    )


def cron_job(name: str, namespace: str = "shop", *, suspend: bool = False) -> CronJob:
    return CronJob(metadata=workload_meta(name, namespace), spec=CronJobSpec(schedule="0 * * * *", suspend=suspend))


def job(
    name: str,
    namespace: str = "shop",
    *,
    controlled_by: OwnerReference | None = None,
    ended: str = "",
    at: datetime = CREATED,
    reason: str = "",
) -> Job:
    conditions = (Condition(type=ended, status="True", reason=reason, last_transition_time=at),) if ended else ()
    return Job(
        metadata=meta(name, namespace, controlled_by=controlled_by),
        spec=JobSpec(completions=1),
        status=JobStatus(conditions=conditions),
    )


def node(
    name: str,
    *,
    ready: str = "True",
    conditions: tuple[Condition, ...] = (),
    unschedulable: bool = False,
    taints: tuple[Taint, ...] = (),
    capacity: dict[str, str] | None = None,
    allocatable: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> Node:
    room = {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"}
    readiness = Condition(type="Ready", status=ready, reason="KubeletReady", last_transition_time=CREATED)
    return Node(
        metadata=ObjectMeta(name=name, uid=f"uid-node-{name}", creation_timestamp=CREATED, labels=labels or {}),
        spec=NodeSpec(unschedulable=unschedulable, taints=taints),
        status=NodeStatus(
            capacity=capacity or room,
            allocatable=allocatable or {**room, "cpu": "3800m", "memory": "14.5Gi", "ephemeral-storage": "95Gi"},
            conditions=(readiness, *conditions),
            node_info=NodeInfo(kubelet_version="v1.28.3"),
        ),
    )


def namespace(name: str, phase: str = "Active") -> Namespace:
    return Namespace(metadata=meta(name, ""), status=NamespaceStatus(phase=phase))


def service(name: str, selector: dict[str, str], namespace: str = "shop", target: int | str = 8080) -> Service:
    return Service(
        metadata=meta(name, namespace),
        spec=ServiceSpec(
            cluster_ip="10.96.45.123", selector=selector, ports=(ServicePort(port=80, target_port=target),)
        ),
    )


def event(
    name: str,
    about: ObjectReference,
    reason: str,
    message: str,
    at: datetime,
    severity: str = "Normal",
) -> Event:
    return Event(
        metadata=meta(name, about.namespace or "default"),
        involved_object=about,
        type=severity,
        reason=reason,
        message=message,
        last_timestamp=at,
    )
