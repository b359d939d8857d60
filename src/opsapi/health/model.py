"""The health of the system as the specification shows it."""

from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType


class Status(StrEnum):
    """`unhealthy`: it was asked and failed; `unknown`: it could not be asked; `degraded`: part of it failed."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class ApiServer(msgspec.Struct, frozen=True, kw_only=True):
    """This process. `response_time_ms`: the mean of the last requests answered; null before the first."""

    status: Status
    response_time_ms: int | float | None
    uptime: str
    observed_at: datetime | UnsetType = UNSET


class Connections(msgspec.Struct, frozen=True, kw_only=True):
    active: int | None
    idle: int | None
    max: int | None


class QueryPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """Over the last five minutes."""

    avg_response_ms: float | None
    slow_queries: int | None


class DatabaseHealth(msgspec.Struct, frozen=True, kw_only=True):
    status: Status
    connections: Connections
    query_performance: QueryPerformance
    reason: str | UnsetType = UNSET
    observed_at: datetime | UnsetType | None = UNSET


class NodeCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Over all workspaces; a node that several workspaces see counts once."""

    total: int | None
    ready: int | None
    not_ready: int | None


class KubernetesHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The control planes of all workspaces. `version` is null where they differ."""

    status: Status
    version: str | None
    nodes: NodeCounts
    reason: str | UnsetType = UNSET
    observed_at: datetime | UnsetType | None = UNSET


class QueueHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of operations. `consumer_lag`: how long the oldest one that waits has waited."""

    status: Status
    queue_depth: int | None
    consumer_lag: str | None
    reason: str | UnsetType = UNSET
    observed_at: datetime | UnsetType | None = UNSET


class Components(msgspec.Struct, frozen=True, kw_only=True):
    api_server: ApiServer
    database: DatabaseHealth
    kubernetes_api: KubernetesHealth
    message_queue: QueueHealth


class WorkspaceCounts(msgspec.Struct, frozen=True, kw_only=True):
    """`active`: the control plane answers. `issues`: it does not, or a finding is critical."""

    total: int
    active: int
    issues: int


class UsagePercentages(msgspec.Struct, frozen=True, kw_only=True):
    """Of the allocatable room of all measured nodes."""

    cpu_percentage: float | None
    memory_percentage: float | None
    storage_percentage: float | None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`timestamp`: when these findings were put together."""

    status: Status
    timestamp: datetime
    version: str
    components: Components
    workspaces: WorkspaceCounts
    resource_usage: UsagePercentages
