"""The overview of a workspace as the specification shows it; what it does not know of is left out where unset."""

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from opsapi.workspaces.activity import Activity
from opsapi.workspaces.model import Mode


class WorkspaceHead(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: `active`, `unreachable` (the control plane does not answer) or `unknown` (not tried yet)."""

    id: str
    name: str
    plan: str
    status: str
    created_at: datetime | None
    mode: Mode | UnsetType = UNSET


class ApplicationCounts(msgspec.Struct, frozen=True, kw_only=True):
    """total = running + stopped + failed + pending + unknown."""

    total: int
    running: int
    stopped: int
    failed: int
    pending: int | UnsetType = UNSET
    unknown: int | UnsetType = UNSET


class ProjectCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Namespaces; active ones are not being deleted."""

    total: int | None
    active: int | None


class FunctionCounts(msgspec.Struct, frozen=True, kw_only=True):
    """total = active (a pod runs) + cold (none does) + failed (reported not ready)."""

    total: int
    active: int
    cold: int
    failed: int | UnsetType = UNSET


class PipelineCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Active ones have a run that has not ended; `last_run` is when the newest run started."""

    total: int
    active: int | None
    last_run: datetime | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    applications: ApplicationCounts
    projects: ProjectCounts
    functions: FunctionCounts | None
    pipelines: PipelineCounts | None


class ResourceFigure(msgspec.Struct, frozen=True, kw_only=True):
    """`used` is measured, `total` the quota or the nodes' capacity, `requested` what pods or claims reserve."""

    used: str | None
    total: str | None
    percentage: float | None
    requested: str | UnsetType | None = UNSET


class PodCounts(msgspec.Struct, frozen=True, kw_only=True):
    """By phase."""

    running: int
    pending: int
    failed: int
    succeeded: int | UnsetType = UNSET
    unknown: int | UnsetType = UNSET


class ResourceUsage(msgspec.Struct, frozen=True, kw_only=True):
    cpu: ResourceFigure
    memory: ResourceFigure
    storage: ResourceFigure
    pods: PodCounts | None


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    severity: str
    type: str
    component: str
    message: str
    kind: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET
    application_id: str | UnsetType = UNSET


class HealthMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Scores are 100 less the published deductions. `issues` holds the worst; `issues_total` counts all."""

    overall_score: int | None
    availability: float | None
    performance_score: int | None
    issues: list[Issue]
    issues_total: int | UnsetType = UNSET


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    workspace: WorkspaceHead
    summary: Summary
    resource_usage: ResourceUsage
    health_metrics: HealthMetrics
    recent_activity: list[Activity]
