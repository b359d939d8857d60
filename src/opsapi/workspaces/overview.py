"""Puts a workspace's overview together from the running totals: nothing here costs anything per pod."""

import heapq
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET

from opsapi.kit.endpoint import Partial
from opsapi.workspaces.activity import Entry, shortened
from opsapi.workspaces.addons import function_counts, observed, pipeline_counts, why_not
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.findings import Finding, score
from opsapi.workspaces.model import Workspace
from opsapi.workspaces.objects import (
    APPLICATION_KINDS,
    FISSION_FUNCTION,
    KNATIVE_SERVICE,
    NAMESPACE,
    POD,
    TEKTON_PIPELINE,
    TEKTON_PIPELINE_RUN,
    Namespace,
)
from opsapi.workspaces.overview_model import (
    ApplicationCounts,
    HealthMetrics,
    Issue,
    Overview,
    ProjectCounts,
    Summary,
    WorkspaceHead,
)
from opsapi.workspaces.ports import ClusterState, Inventory
from opsapi.workspaces.resources import resource_usage
from opsapi.workspaces.states import ApplicationState
from opsapi.workspaces.tallies import Tallies
from opsapi.workspaces.usage import UsageFigures

MAX_ISSUES = 20
MAX_ACTIVITIES = 20
MAX_BYTES = 7_700
"""What `data` may take, so that the answer with its meta stays under 8 KiB however long the names are."""
MAX_MESSAGE = 120
_POINTER = len('"/data/recent_activity/19/details",')


class Built(msgspec.Struct, frozen=True):
    """An overview with what its reply says about it."""

    data: Overview
    partial: list[Partial]
    untrusted: list[str]
    warnings: list[str]
    truncated: bool
    encoded: msgspec.Raw
    """`data` as JSON."""


def build_overview(
    workspace: Workspace,
    cluster: ClusterState,
    inventory: Inventory,
    tallies: Tallies,
    figures: UsageFigures,
    entries: Sequence[Entry],
) -> Built:
    """`entries`: the newest activities first. `tallies` must be settled."""
    usage, partial, warnings = resource_usage(workspace, inventory, tallies, figures)
    summary = _summary(workspace, inventory, tallies, partial)
    findings = [*tallies.findings(), *figures.findings]
    health = _health(workspace, inventory, tallies, figures, findings, partial)
    data = Overview(
        workspace=_head(workspace, inventory, cluster, partial),
        summary=summary,
        resource_usage=usage,
        health_metrics=health,
        recent_activity=[entry.activity for entry in entries[:MAX_ACTIVITIES]],
    )
    fitted = fit(data, MAX_BYTES - _size(partial) - _size(warnings))
    kept = len(fitted.recent_activity)
    return Built(
        data=fitted,
        partial=partial,
        untrusted=[f"/recent_activity/{i}/details" for i, entry in enumerate(entries[:kept]) if entry.untrusted],
        warnings=warnings,
        encoded=msgspec.Raw(msgspec.json.encode(fitted)),
        truncated=len(findings) > len(fitted.health_metrics.issues) or kept < min(len(entries), MAX_ACTIVITIES),
    )


def fit(data: Overview, budget: int) -> Overview:
    """Drops the oldest activities, then the mildest issues, until the overview fits `budget` bytes of JSON.

    An activity's place in `meta.untrusted` is counted with it.
    """
    spare = budget - _size(data) - _POINTER * len(data.recent_activity)
    if spare >= 0:
        return data
    activities = list(data.recent_activity)
    while activities and spare < 0:
        spare += _size(activities.pop()) + 1 + _POINTER
    issues = list(data.health_metrics.issues)
    while issues and spare < 0:
        spare += _size(issues.pop()) + 1
    health = msgspec.structs.replace(data.health_metrics, issues=issues)
    return msgspec.structs.replace(data, health_metrics=health, recent_activity=activities)


def _size(value: object) -> int:
    return len(msgspec.json.encode(value))


def created_at(workspace: Workspace, inventory: Inventory) -> datetime | None:
    """As registered, else when its oldest namespace was made; None where neither is known."""
    if workspace.created_at is not None:
        return workspace.created_at.replace(microsecond=0)
    seen = (one.metadata.creation_timestamp for one in inventory.all(NAMESPACE, Namespace))
    return min((moment for moment in seen if moment is not None), default=None)


def _head(workspace: Workspace, inventory: Inventory, cluster: ClusterState, partial: list[Partial]) -> WorkspaceHead:
    created = created_at(workspace, inventory)
    if created is None:
        partial.append(Partial("workspace.created_at", "the configuration does not say, and no namespace was read"))
    return WorkspaceHead(
        id=workspace.id,
        name=workspace.name,
        plan=workspace.plan.value,
        status=status_of(cluster),
        created_at=created,
        mode=workspace.mode,
    )


def status_of(cluster: ClusterState) -> str:
    """`active`, `unreachable` or `unknown`: whether the workspace's control plane answers."""
    if cluster.reachable is None:
        return "unknown"
    return "active" if cluster.reachable else "unreachable"


def _summary(workspace: Workspace, inventory: Inventory, tallies: Tallies, partial: list[Partial]) -> Summary:
    counts = {state: tallies.states[state] for state in ApplicationState}
    unread = [kind for kind in APPLICATION_KINDS if not observed(inventory, kind)]
    if unread:
        partial.append(Partial("summary.applications", f"without what {why_not(inventory, *unread)}"))
    functions = function_counts(inventory, tallies)
    if functions is None:
        partial.append(Partial("summary.functions", why_not(inventory, KNATIVE_SERVICE, FISSION_FUNCTION)))
    pipelines = pipeline_counts(inventory)
    if pipelines is None:
        partial.append(Partial("summary.pipelines", why_not(inventory, TEKTON_PIPELINE)))
    elif pipelines.active is None:
        for field in ("active", "last_run"):
            partial.append(Partial(f"summary.pipelines.{field}", why_not(inventory, TEKTON_PIPELINE_RUN)))
    elif pipelines.last_run is None:
        partial.append(Partial("summary.pipelines.last_run", "no pipeline has run yet"))
    return Summary(
        applications=ApplicationCounts(
            total=sum(counts.values()),
            running=counts[ApplicationState.RUNNING],
            stopped=counts[ApplicationState.STOPPED],
            failed=counts[ApplicationState.FAILED],
            pending=counts[ApplicationState.PENDING],
            unknown=counts[ApplicationState.UNKNOWN],
        ),
        projects=_projects(workspace, inventory, tallies, partial),
        functions=functions,
        pipelines=pipelines,
    )


def _projects(workspace: Workspace, inventory: Inventory, tallies: Tallies, partial: list[Partial]) -> ProjectCounts:
    if observed(inventory, NAMESPACE):
        return ProjectCounts(total=tallies.projects.total(), active=tallies.projects["Active"])
    reason = why_not(inventory, NAMESPACE)
    partial.append(Partial("summary.projects.active", reason))
    if workspace.namespaces:
        return ProjectCounts(total=len(workspace.namespaces), active=None)
    partial.append(Partial("summary.projects.total", reason))
    return ProjectCounts(total=None, active=None)


def _health(
    workspace: Workspace,
    inventory: Inventory,
    tallies: Tallies,
    figures: UsageFigures,
    findings: list[Finding],
    partial: list[Partial],
) -> HealthMetrics:
    partial.append(Partial("health_metrics.availability", "no history of availability is kept yet"))
    counts = tallies.finding_counts + Counter(finding.type for finding in figures.findings)
    blind = [kind for kind in (POD, *APPLICATION_KINDS) if not observed(inventory, kind)]
    overall = performance = None
    if blind:
        partial.append(Partial("health_metrics.overall_score", why_not(inventory, *blind)))
    else:
        overall = score(counts)
    if blind or figures.pods_in is None:
        reason = why_not(inventory, *blind) if blind else figures.reason or "no usage was measured"
        partial.append(Partial("health_metrics.performance_score", reason))
    else:
        performance = score(counts, performance=True)
    worst = heapq.nsmallest(MAX_ISSUES, findings, key=lambda finding: finding.worst_first)
    return HealthMetrics(
        overall_score=overall,
        availability=None,
        performance_score=performance,
        issues=[_issue(workspace, tallies, finding) for finding in worst],
        issues_total=len(findings),
    )


def _issue(workspace: Workspace, tallies: Tallies, finding: Finding) -> Issue:
    application = tallies.applications.get(finding.application)
    named = UNSET
    if application is not None:
        named = application_id(workspace.id, application.kind, application.object.metadata)  # type: ignore[assignment]
    return Issue(
        severity=finding.severity.value,
        type=finding.type.value,
        component=finding.name,
        message=shortened(finding.message, MAX_MESSAGE),
        kind=finding.kind,
        namespace=finding.namespace or UNSET,
        application_id=named,
    )


def merge_newest(first: Sequence[Entry], second: Sequence[Entry], limit: int) -> list[Entry]:
    """Two lists, both newest first, as one."""

    def moment(entry: Entry) -> datetime:
        return entry.activity.timestamp

    return list(heapq.merge(first, second, key=moment, reverse=True))[:limit]
