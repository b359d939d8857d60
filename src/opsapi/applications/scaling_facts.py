"""Gathers what the decision to scale rests on: candidates from the cache, the target itself fresh from the cluster."""

import re

from opsapi.applications.demand import capacity
from opsapi.applications.errors import ProtectedNamespace, TargetGone, WriteConflict, WriteRefused
from opsapi.applications.ports import ScaleState, WorkloadRef, Workloads
from opsapi.applications.scaled_objects import owner_of, read_scaled_object, targets
from opsapi.applications.scaling_model import Capacity, ScaleFacts
from opsapi.kit.errors import AmbiguousResource, DependencyUnavailable, ResourceNotFound, ValidationFailed
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.model import Plan
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NAMESPACE,
    NODE,
    POD,
    RESOURCE_QUOTA,
    SCALED_OBJECT,
    CustomObject,
    HorizontalPodAutoscaler,
    Kind,
    Namespace,
    Node,
    PodDisruptionBudget,
    ResourceQuota,
    Workload,
)
from opsapi.workspaces.ports import Cluster, Inventory, Sync
from opsapi.workspaces.writing import Objects

_API = "kubernetes_api"
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check_names(deployment: str, project: str | None) -> None:
    """Raises ValidationFailed for what Kubernetes could never have named an object or a namespace."""
    faults = {}
    if len(deployment) > 253 or not _DNS_SUBDOMAIN.fullmatch(deployment):
        faults["deployment_name"] = "is no name of a Kubernetes object (lower-case letters, digits, - and .)"
    if project is not None and not _DNS_LABEL.fullmatch(project):
        faults["project"] = "is no name of a namespace (at most 63 lower-case letters, digits and -)"
    if faults:
        raise ValidationFailed(faults)


def find_deployment(cluster: Cluster, policy: PolicySettings, name: str, project: str | None) -> WorkloadRef:
    """The one deployment of that name. Raises ProtectedNamespace, AmbiguousResource, ResourceNotFound, and
    DependencyUnavailable where the cluster is away or its deployments are not known."""
    workspace, inventory = cluster.workspace, cluster.inventory
    reached = cluster.state()
    if reached.reachable is False:
        raise DependencyUnavailable(_API, reached.reason or "it does not answer", workspace_id=workspace.id)
    inventory.require(DEPLOYMENT)
    state = inventory.state(DEPLOYMENT)
    if state.sync in (Sync.FORBIDDEN, Sync.UNSERVED):
        raise DependencyUnavailable(_API, state.reason or "deployments cannot be read", workspace_id=workspace.id)
    if project is not None and policy.protects(project):
        raise ProtectedNamespace(project)
    found = [
        held
        for held in inventory.all(DEPLOYMENT, Workload, project or "")
        if held.metadata.name == name and workspace.in_scope(held.metadata.namespace)
    ]
    free = [held for held in found if not policy.protects(held.metadata.namespace)]
    if found and not free:
        raise ProtectedNamespace(found[0].metadata.namespace)
    if len(free) > 1:
        namespaces = sorted(held.metadata.namespace for held in free)
        raise AmbiguousResource("deployment", name, namespaces, "project")
    if not free:
        if state.sync is Sync.STALE:
            reason = "what it holds could not be confirmed lately, and no such deployment was known before"
            raise DependencyUnavailable(_API, reason, workspace_id=workspace.id)
        raise ResourceNotFound("deployment", name)
    meta = free[0].metadata
    return WorkloadRef(workspace.id, DEPLOYMENT, meta.namespace, meta.name, meta.uid)


async def gather(
    cluster: Cluster, workloads: Workloads, objects: Objects, ref: WorkloadRef, *, wanted: int
) -> ScaleFacts:
    """Facts for scaling to `wanted` replicas.

    Raises ResourceNotFound where the deployment has gone meanwhile, DependencyUnavailable where the cluster does not
    answer or does not let the service read.
    """
    try:
        workload = await workloads.read_workload(ref)
        scale = await workloads.read_scale(ref)
        autoscaler = await workloads.find_autoscaler(ref)
    except TargetGone:
        raise ResourceNotFound(ref.kind.kind.lower(), ref.name) from None
    except WriteConflict as error:
        reason = f"{ref.name} was just replaced; what is known of it catches up in a moment"
        raise DependencyUnavailable(_API, reason, workspace_id=ref.workspace_id, retry_after=1) from error
    except WriteRefused as error:
        reason = f"the acting credentials may not read what scaling needs ({error.reason})"
        raise DependencyUnavailable(_API, reason, workspace_id=ref.workspace_id, retry_after=60) from error
    inventory = cluster.inventory
    scaled, editable = await _scaled_object(inventory, objects, ref, autoscaler)
    namespace = inventory.get(NAMESPACE, Namespace, "", ref.namespace)
    quotas = inventory.all(RESOURCE_QUOTA, ResourceQuota, ref.namespace) if _known(inventory, RESOURCE_QUOTA) else None
    budgets = (
        inventory.all(DISRUPTION_BUDGET, PodDisruptionBudget, ref.namespace)
        if _known(inventory, DISRUPTION_BUDGET)
        else None
    )
    return ScaleFacts(
        ref=ref,
        application_id=application_id(ref.workspace_id, ref.kind, workload.metadata),
        workload=workload,
        scale=scale,
        autoscaler=autoscaler,
        scaled_object=scaled,
        editable=editable,
        namespace_labels=namespace.metadata.labels if namespace is not None else {},
        quotas=None if quotas is None else tuple(quotas),
        budgets=None if budgets is None else tuple(budgets),
        capacity=capacity_for(cluster, workload, scale, wanted),
    )


def _known(inventory: Inventory, kind: Kind) -> bool:
    return inventory.state(kind).sync in (Sync.SYNCED, Sync.STALE)


async def _scaled_object(
    inventory: Inventory, objects: Objects, ref: WorkloadRef, autoscaler: HorizontalPodAutoscaler | None
) -> tuple[CustomObject | None, bool]:
    """The KEDA ScaledObject that targets the workload, and whether it could be read fresh. The HPA that KEDA makes
    names it where the cache does not know such objects."""
    cached = None
    if _known(inventory, SCALED_OBJECT):
        all_of_them = inventory.all(SCALED_OBJECT, CustomObject, ref.namespace)
        cached = next((held for held in all_of_them if targets(held, ref)), None)
    name = cached.metadata.name if cached is not None else owner_of(autoscaler)
    fresh = await read_scaled_object(objects, ref, name) if name else None
    return fresh or cached, fresh is not None


def capacity_for(cluster: Cluster, workload: Workload, scale: ScaleState, wanted: int) -> Capacity:
    """Nodes say something only where the workspace is the whole cluster: elsewhere others' pods are not seen."""
    added = max(0, wanted - scale.current)
    inventory, workspace = cluster.inventory, cluster.workspace
    if workspace.plan is Plan.SHARED or workspace.namespaces:
        reason = "the workspace shares its nodes with others"
        return Capacity(wanted=added, room_for=None, fits=None, reason=reason)
    if not (_known(inventory, NODE) and _known(inventory, POD)):
        return Capacity(wanted=added, room_for=None, fits=None, reason="nodes or pods could not be read")
    nodes = ((node, inventory.pods_on(node.metadata.name)) for node in inventory.all(NODE, Node))
    return capacity(nodes, workload.spec.template, added)
