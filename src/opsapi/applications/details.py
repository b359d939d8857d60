"""Puts an application's details together from the cache and the last reading of usage."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET

from opsapi.applications.details_model import (
    ApplicationHead,
    ContainerResources,
    ContainerView,
    DeploymentView,
    Details,
    HealthView,
    Quantities,
    ReplicaFigures,
    ServicePortView,
    ServiceView,
)
from opsapi.applications.errors import ApplicationNotFound
from opsapi.applications.identity import ApplicationRef
from opsapi.applications.images import main_container
from opsapi.applications.pods import (
    liveness_checks,
    living,
    pod_view,
    pods_of,
    readiness_checks,
    usage_metrics,
    usage_of,
    worst_first,
)
from opsapi.kit.endpoint import Partial
from opsapi.workspaces.addons import observed, why_not
from opsapi.workspaces.findings import Finding
from opsapi.workspaces.objects import (
    CRON_JOB,
    DEPLOYMENT,
    EVENT,
    JOB,
    POD,
    REPLICA_SET,
    SERVICE,
    Container,
    CronJob,
    Kind,
    ObjectMeta,
    Pod,
    Resources,
    Service,
    Workload,
)
from opsapi.workspaces.states import ApplicationState, Replicas, replicas_of
from opsapi.workspaces.views import WorkspaceView

NO_REPLICAS = "a CronJob has no replicas: it starts Jobs on a schedule"
_OVERALL = {
    ApplicationState.FAILED: "unhealthy",
    ApplicationState.PENDING: "pending",
    ApplicationState.STOPPED: "stopped",
    ApplicationState.UNKNOWN: "unknown",
}


class BuiltDetails(msgspec.Struct, frozen=True):
    data: Details
    partial: list[Partial]
    observed_at: datetime
    truncated: bool
    warnings: Sequence[str] = ()


def kinds_behind(kind: Kind) -> tuple[Kind, ...]:
    """What must have been read before an application of `kind` can be shown."""
    between = {DEPLOYMENT: (REPLICA_SET,), CRON_JOB: (JOB,)}.get(kind, ())
    return kind, POD, SERVICE, *between


def build_details(ref: ApplicationRef, view: WorkspaceView, pod_limit: int) -> BuiltDetails:
    """All but what requests tell (`with_traffic`). Raises DependencyUnavailable until what it rests on has been read,
    ApplicationNotFound if it went meanwhile."""
    inventory = view.inventory
    observed_at = inventory.require(*kinds_behind(ref.kind))
    application = view.settle().applications.get(ref.uid)
    if application is None:
        raise ApplicationNotFound(ref.id)
    held, state = application.object, application.verdict.state
    partial: list[Partial] = []
    pods = pods_of(inventory, ref.kind, ref.uid)
    snapshot, now = view.cluster.usage(), inventory.now()
    shown = worst_first(pods)[:pod_limit]
    views = [pod_view(pod, usage_of(pod, snapshot), now) for pod in shown]
    if any(one.cpu_usage is None for one in views):
        why = snapshot.reason or "metrics.k8s.io has no reading of the pod"
        partial += [Partial("pods[].cpu_usage", why), Partial("pods[].memory_usage", why)]
    if any(one.node is None for one in views):
        partial.append(Partial("pods[].node", "the pod is on no node yet"))
    metrics, reasons = usage_metrics(living(pods), snapshot)
    partial += [Partial(f"metrics.{field}", why) for field, why in reasons.items()]
    template = held.spec.job_template.spec.template if isinstance(held, CronJob) else held.spec.template
    details = Details(
        application=ApplicationHead(
            id=ref.id,
            name=ref.name,
            workspace_id=ref.workspace_id,
            status=state.value,
            created_at=held.metadata.creation_timestamp,
            kind=ref.kind.kind,
            project=ref.namespace,
        ),
        deployment=_deployment(ref, held, template.spec.containers, partial),
        pods=views,
        services=_services(view, ref.namespace, template.metadata, partial),
        health=_health(view, pods, state, _findings(view, ref), held, ref.kind, partial),
        metrics=metrics,
        pods_total=len(pods),
    )
    return BuiltDetails(details, partial, observed_at, len(pods) > pod_limit)


def _findings(view: WorkspaceView, ref: ApplicationRef) -> list[Finding]:
    usage = [finding for finding in view.figures.findings if finding.application == ref.uid]
    return sorted((*view.tallies.findings_of(ref.uid), *usage), key=lambda finding: finding.worst_first)


def _deployment(
    ref: ApplicationRef, held: Workload | CronJob, containers: Sequence[Container], partial: list[Partial]
) -> DeploymentView:
    main = main_container(ref.name, containers)
    views = [ContainerView(name=c.name, image=c.image, resources=_resources(c.resources)) for c in containers]
    resources = _resources(main.resources) if main is not None else None
    if main is None:
        partial += [Partial(f"deployment.{field}", "it has no container") for field in ("image", "resources")]
    else:
        _explain_unset(partial, main)
    _explain_unset_anywhere(partial, containers)
    image = main.image if main is not None else None
    if isinstance(held, CronJob):
        partial += [Partial("deployment.replicas", NO_REPLICAS), Partial("deployment.strategy", NO_REPLICAS)]
        return DeploymentView(
            replicas=None,
            strategy=None,
            image=image,
            resources=resources,
            containers=views,
            schedule=held.spec.schedule,
            suspended=held.spec.suspend,
        )
    counts: Replicas = replicas_of(ref.kind, held)
    strategy = held.spec.strategy.type or held.spec.update_strategy.type or None
    if strategy is None:
        partial.append(Partial("deployment.strategy", "the workload states none"))
    return DeploymentView(
        replicas=ReplicaFigures(
            desired=counts.desired, ready=counts.ready, available=counts.available, updated=counts.updated
        ),
        strategy=strategy,
        image=image,
        resources=resources,
        containers=views,
    )


def _explain_unset(partial: list[Partial], main: Container) -> None:
    for group, quantities in (("requests", main.resources.requests), ("limits", main.resources.limits)):
        for name in ("cpu", "memory"):
            if name not in quantities:
                reason = f"container {main.name} sets none"
                partial.append(Partial(f"deployment.resources.{group}.{name}", reason))


def _explain_unset_anywhere(partial: list[Partial], containers: Sequence[Container]) -> None:
    for group in ("requests", "limits"):
        for name in ("cpu", "memory"):
            without = [one.name for one in containers if name not in getattr(one.resources, group)]
            if without:
                field = f"deployment.containers[].resources.{group}.{name}"
                partial.append(Partial(field, f"not set by container {', '.join(without[:5])}"))


def _resources(resources: Resources) -> ContainerResources:
    return ContainerResources(
        requests=Quantities(cpu=resources.requests.get("cpu"), memory=resources.requests.get("memory")),
        limits=Quantities(cpu=resources.limits.get("cpu"), memory=resources.limits.get("memory")),
    )


def _services(view: WorkspaceView, namespace: str, template: ObjectMeta, partial: list[Partial]) -> list[ServiceView]:
    """Those of its namespace whose selector matches its pods' labels."""
    if not observed(view.inventory, SERVICE):
        partial.append(Partial("services", why_not(view.inventory, SERVICE)))
        return []
    labels = template.labels.items()
    matching = [
        service
        for service in view.inventory.all(SERVICE, Service, namespace)
        if service.spec.selector and service.spec.selector.items() <= labels
    ]
    return [_service(service) for service in sorted(matching, key=lambda service: service.metadata.name)]


def _service(service: Service) -> ServiceView:
    return ServiceView(
        name=service.metadata.name,
        type=service.spec.type,
        cluster_ip=service.spec.cluster_ip or None,
        ports=[
            ServicePortView(
                port=port.port, target_port=port.target_port, protocol=port.protocol, name=port.name or UNSET
            )
            for port in service.spec.ports
        ],
    )


def _health(
    view: WorkspaceView,
    pods: Sequence[Pod],
    state: ApplicationState,
    findings: Sequence[Finding],
    held: Workload | CronJob,
    kind: Kind,
    partial: list[Partial],
) -> HealthView:
    readiness = readiness_checks(pods)
    if readiness is None:
        partial.append(Partial("health.readiness_checks", "no running pod has a readiness probe"))
    liveness = None
    if not observed(view.inventory, EVENT):
        partial.append(Partial("health.liveness_checks", why_not(view.inventory, EVENT)))
    else:
        liveness = liveness_checks(pods, view.events.liveness_failed_at, view.inventory.now())
        if liveness is None:
            partial.append(Partial("health.liveness_checks", "no running pod has a liveness probe"))
    return HealthView(
        overall_status=_OVERALL.get(state) or ("healthy" if _whole(held, kind) and not findings else "degraded"),
        readiness_checks=readiness,
        liveness_checks=liveness,
        issues=[f"{finding.type.value}: {finding.message}" for finding in findings],
    )


def _whole(held: Workload | CronJob, kind: Kind) -> bool:
    if isinstance(held, CronJob):
        return True
    counts = replicas_of(kind, held)
    return counts.ready >= counts.desired
