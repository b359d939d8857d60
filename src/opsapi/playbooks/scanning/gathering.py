"""What a scan reads of a cluster: lists of objects as JSON, and what could not be read, said in words of ours."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from opsapi.operations.errors import StepFailed
from opsapi.operations.work import StepWork
from opsapi.playbooks.scanning.model import Where
from opsapi.workspaces.objects import (
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    JOB,
    NAMESPACE,
    POD,
    REPLICA_SET,
    STATEFUL_SET,
    Kind,
    Namespace,
    Pod,
    Workload,
)
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import JsonObject, Objects, Resource, TargetGone, WriteRefused


def _resource(kind: Kind) -> Resource:
    return Resource(kind.group, kind.version, kind.resource, kind.kind, kind.namespaced)


PODS = _resource(POD)
SERVICES = Resource("", "v1", "services", "Service")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
TEMPLATES = {
    _resource(DEPLOYMENT): "$.spec.template",
    _resource(STATEFUL_SET): "$.spec.template",
    _resource(DAEMON_SET): "$.spec.template",
    _resource(REPLICA_SET): "$.spec.template",
    _resource(JOB): "$.spec.template",
    _resource(CRON_JOB): "$.spec.jobTemplate.spec.template",
}
"""The kinds that hold pod templates, with the template's JSONPath."""
_TEMPLATE_KINDS = frozenset((resource.group, resource.kind) for resource in TEMPLATES)
_ENDED = ("Succeeded", "Failed")


def cluster_of(clusters: Clusters, work: StepWork) -> Cluster:
    """Raises StepFailed where the workspace is gone or is limited otherwise than when the scan was asked for (its
    findings would be shown as those of another extent), DependencyUnavailable where its cache is not filled yet."""
    cluster = clusters.find(work.operation.workspace_id)
    if cluster is None:
        raise StepFailed("RESOURCE_NOT_FOUND", f"Workspace {work.operation.workspace_id} is not served any more")
    if list(cluster.workspace.namespaces) != list(work.operation.parameters.get("namespaces", ())):
        raise StepFailed("INVALID_STATE", "The workspace is limited to other namespaces by now; ask for a scan again")
    cluster.inventory.require(NAMESPACE, POD, DEPLOYMENT, REPLICA_SET)
    return cluster


def namespaces_of(cluster: Cluster) -> tuple[str, ...]:
    """Those in the workspace's scope; one "" (all at once) where they cannot be listed."""
    if cluster.workspace.namespaces:
        return cluster.workspace.namespaces
    known = sorted(one.metadata.name for one in cluster.inventory.all(NAMESPACE, Namespace))
    return tuple(known) or ("",)


@dataclass(slots=True)
class Gatherer:
    """Lists namespace by namespace, so that no more than one namespace's objects are held at once. Between objects the
    rest of the service gets its turn, and a wish to stop is noticed. `unread` says by kind why some or all of it is
    missing."""

    objects: Objects
    work: StepWork
    unread: dict[str, str] = field(default_factory=dict)

    async def each(self, resource: Resource, namespaces: Iterable[str]) -> AsyncIterator[JsonObject]:
        """Raises DependencyUnavailable and OperationStopped."""
        for namespace in namespaces if resource.namespaced else ("",):
            for held in await self._list(resource, namespace):
                await self.work.sleep(0)
                yield held

    async def _list(self, resource: Resource, namespace: str) -> list[JsonObject]:
        await self.work.sleep(0)
        try:
            return await self.objects.list(self.work.operation.workspace_id, resource, namespace)
        except TargetGone:
            return []
        except WriteRefused as refused:
            where = f" in namespace {namespace}" if namespace else ""
            why = f"the credentials may not list {resource}{where}: {refused.reason}"
            self.unread.setdefault(resource.kind, why)
            return []


def owner_of(held: JsonObject) -> dict[str, Any]:
    """The controller's reference, or {}."""
    references: list[dict[str, Any]] = held["metadata"].get("ownerReferences") or []
    return next((one for one in references if one.get("controller")), {})


def judged_elsewhere(owner: dict[str, Any]) -> bool:
    """Whether the object comes from a template that is judged itself."""
    group = owner.get("apiVersion", "").rpartition("/")[0]
    return (group, owner.get("kind", "")) in _TEMPLATE_KINDS


def template_of(held: JsonObject, path: str) -> JsonObject:
    """By the JSONPath of TEMPLATES."""
    for part in path.removeprefix("$.").split("."):
        held = held.get(part) or {}
    return held


def runs(held: JsonObject) -> bool:
    """False for what will make no pod any more: replaced ReplicaSets and finished Jobs."""
    if held["kind"] == "ReplicaSet":
        return bool(held.get("spec", {}).get("replicas", 1))
    if held["kind"] == "Job":
        conditions = held.get("status", {}).get("conditions") or ()
        return not any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)
    return True


def where_of(held: JsonObject) -> Where:
    meta = held["metadata"]
    return Where(kind=held["kind"], namespace=meta.get("namespace", ""), name=meta["name"])


def alone(pod: Pod) -> bool:
    """Whether no template tells what the pod is: it has no controller that we judge, or was given a debug container."""
    if pod.status.phase in _ENDED:
        return False
    owner = pod.metadata.controller
    known = owner is not None and (owner.api_version.rpartition("/")[0], owner.kind) in _TEMPLATE_KINDS
    return not known or bool(pod.spec.ephemeral_containers)


def running_images(cluster: Cluster) -> dict[str, set[str]]:
    """References of what has not ended, each with the namespaces that it runs in."""
    found: dict[str, set[str]] = {}
    for pod in cluster.inventory.all(POD, Pod):
        if pod.status.phase in _ENDED or not cluster.workspace.in_scope(pod.metadata.namespace):
            continue
        spec = pod.spec
        for container in (*spec.containers, *spec.init_containers, *spec.ephemeral_containers):
            found.setdefault(container.image, set()).add(pod.metadata.namespace)
    return found


def workload_behind(cluster: Cluster, about: Where) -> Where:
    """A Deployment for its ReplicaSet, so that what is found keeps its id over rollouts."""
    held = _replica_set(cluster, about)
    owner = held.metadata.controller if held is not None else None
    if owner is None or owner.kind != DEPLOYMENT.kind:
        return about
    return Where(kind=owner.kind, namespace=about.namespace, name=owner.name, container=about.container)


def superseded(cluster: Cluster, about: Where) -> bool:
    """Whether the report is about a ReplicaSet that its Deployment has replaced."""
    held = _replica_set(cluster, about)
    if held is None or held.spec.replicas != 0:
        return False
    behind = workload_behind(cluster, about)
    deployment = cluster.inventory.get(DEPLOYMENT, Workload, behind.namespace, behind.name)
    return deployment is not None and deployment.spec.replicas != 0


def _replica_set(cluster: Cluster, about: Where) -> Workload | None:
    if about.kind != REPLICA_SET.kind:
        return None
    return cluster.inventory.get(REPLICA_SET, Workload, about.namespace, about.name)
