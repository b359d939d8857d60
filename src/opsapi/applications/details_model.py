"""The details of an application as the specification shows them."""

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType


class ApplicationHead(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    workspace_id: str
    status: str
    created_at: datetime | None
    kind: str | UnsetType = UNSET
    project: str | UnsetType = UNSET


class ReplicaFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`desired` as specified; the rest as the controller reports."""

    desired: int
    ready: int
    available: int
    updated: int


class Quantities(msgspec.Struct, frozen=True, kw_only=True):
    """As written in the manifest; null where not set."""

    cpu: str | None
    memory: str | None


class ContainerResources(msgspec.Struct, frozen=True, kw_only=True):
    requests: Quantities
    limits: Quantities


class ContainerView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    image: str
    resources: ContainerResources


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """`image` and `resources` are the main container's; `containers` lists every one. `replicas` and `strategy` are
    null for a CronJob, which has a `schedule` instead."""

    replicas: ReplicaFigures | None
    strategy: str | None
    image: str | None
    resources: ContainerResources | None
    containers: list[ContainerView] | UnsetType = UNSET
    schedule: str | UnsetType = UNSET
    suspended: bool | UnsetType = UNSET


class PodView(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: the phase, or `terminating`. `cpu_usage` in millicores, `memory_usage` in MiB, measured. `reason`: the
    kubelet's word for what is wrong."""

    name: str
    status: str
    ready: bool
    node: str | None
    cpu_usage: float | None
    memory_usage: int | None
    restarts: int
    age: str | None
    reason: str | UnsetType = UNSET


class ServicePortView(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    target_port: int | str | None
    protocol: str
    name: str | UnsetType = UNSET


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: str
    cluster_ip: str | None
    ports: list[ServicePortView]


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """Pods by the outcome of their probes; pods that have ended are not counted."""

    passing: int
    failing: int


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    """`overall_status`: `healthy`, `degraded`, `unhealthy`, `pending`, `stopped` or `unknown`."""

    overall_status: str
    readiness_checks: Checks | None
    liveness_checks: Checks | None
    issues: list[str] | UnsetType = UNSET


class MetricsView(msgspec.Struct, frozen=True, kw_only=True):
    """Over the pods that were measured. CPU in percent of what they request, memory of their limits; the other base
    stands beside it, named. `request_rate` 1/s, `error_rate` percent, `response_time_p95` milliseconds."""

    cpu_usage_percentage: float | None
    memory_usage_percentage: float | None
    request_rate: float | None
    error_rate: float | None
    response_time_p95: float | None
    cpu_usage_percentage_of_limit: float | UnsetType | None = UNSET
    memory_usage_percentage_of_request: float | UnsetType | None = UNSET


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """`pods` holds the worst first, at most as many as asked for; `pods_total` counts all."""

    application: ApplicationHead
    deployment: DeploymentView
    pods: list[PodView]
    services: list[ServiceView]
    health: HealthView
    metrics: MetricsView
    pods_total: int | UnsetType = UNSET
