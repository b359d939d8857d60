"""What healing rests on: workloads with their pods, revisions and events by the inventory, the target itself fresh."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from opsapi.diagnosis.releases import Revision
from opsapi.diagnosis.workloads import Diagnosis, Observed, deployment_revisions, diagnose
from opsapi.kit.errors import DependencyUnavailable
from opsapi.playbooks.components import Component
from opsapi.playbooks.healing.model import CONTROLLER_REVISIONS, LIMIT_RANGES, RESOURCES
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    EVENT,
    NODE,
    POD,
    REPLICA_SET,
    RESOURCE_QUOTA,
    Event,
    Kind,
    Node,
    Pod,
    ResourceQuota,
    Workload,
)
from opsapi.workspaces.ports import Cluster, Inventory, Sync
from opsapi.workspaces.writing import JsonObject, ObjectKey, Objects, TargetGone, WriteConflict, WriteRefused

T = TypeVar("T")
_API = "kubernetes_api"
_REVISION_LABEL = "controller-revision-hash"


def decoded(held: JsonObject, of: type[T]) -> T:
    """An object as JSON, as the slim Struct of its kind."""
    return msgspec.json.decode(msgspec.json.encode(_without_nulls(held)), type=of)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value


def known(inventory: Inventory, kind: Kind) -> bool:
    return inventory.state(kind).sync in (Sync.SYNCED, Sync.STALE)


def pods_of(inventory: Inventory, kind: Kind, uid: str) -> tuple[Pod, ...]:
    """A workload's pods, of all its revisions, in the order of their names."""
    if kind == DEPLOYMENT:
        sets = inventory.owned_by(uid, REPLICA_SET, Workload)
        found = [pod for held in sets for pod in inventory.owned_by(held.metadata.uid, POD, Pod)]
    else:
        found = list(inventory.owned_by(uid, POD, Pod))
    return tuple(sorted(found, key=lambda pod: pod.metadata.name))


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    component: Component
    workload: Workload
    diagnosis: Diagnosis


class HealingFacts:
    """Raises DependencyUnavailable where the cluster does not answer, or what healing needs cannot be read."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def look(self, cluster: Cluster, component: Component, workload: Workload) -> Diagnosis:
        """By what the inventory holds around the workload."""
        inventory = cluster.inventory
        inventory.require(POD, REPLICA_SET)
        pods = pods_of(inventory, component.kind, workload.metadata.uid)
        revisions: tuple[Revision, ...] = ()
        if component.kind == DEPLOYMENT:
            sets = inventory.owned_by(workload.metadata.uid, REPLICA_SET, Workload)
            revisions = deployment_revisions(sets, pods)
        return diagnose(self._observed(cluster, component, workload, revisions), node_of(inventory))

    def cached(self, cluster: Cluster, component: Component) -> Candidate | None:
        meta = component.meta
        held = cluster.inventory.get(component.kind, Workload, meta.namespace, meta.name)
        if held is None or held.metadata.uid != meta.uid:
            return None
        return Candidate(component=component, workload=held, diagnosis=self.look(cluster, component, held))

    async def fresh(self, cluster: Cluster, component: Component) -> Candidate | None:
        """With the workload as the API server has it, and a StatefulSet's or DaemonSet's revisions too; None where it
        is no more."""
        workspace_id, meta = cluster.workspace.id, component.meta
        resource = RESOURCES[component.kind.kind]
        key = ObjectKey(workspace_id, resource, meta.namespace, meta.name, meta.uid)
        try:
            workload = decoded(await self._objects.get(key), Workload)
        except (TargetGone, WriteConflict):
            return None
        except WriteRefused as error:
            raise _unreadable(workspace_id, error) from error
        diagnosis = self.look(cluster, component, workload)
        if component.kind != DEPLOYMENT and diagnosis.findings:
            revisions = await self._controller_revisions(cluster, component, workload)
            diagnosis = diagnose(self._observed(cluster, component, workload, revisions), node_of(cluster.inventory))
        return Candidate(component=component, workload=workload, diagnosis=diagnosis)

    def _observed(
        self, cluster: Cluster, component: Component, workload: Workload, revisions: tuple[Revision, ...]
    ) -> Observed:
        inventory = cluster.inventory
        namespace = workload.metadata.namespace
        events = tuple(inventory.all(EVENT, Event, namespace)) if known(inventory, EVENT) else None
        return Observed(
            kind=component.kind,
            workload=workload,
            pods=pods_of(inventory, component.kind, workload.metadata.uid),
            revisions=revisions,
            events=events,
            now=inventory.now(),
        )

    async def _controller_revisions(
        self, cluster: Cluster, component: Component, workload: Workload
    ) -> tuple[Revision, ...]:
        meta = workload.metadata
        try:
            listed = await self._objects.list(cluster.workspace.id, CONTROLLER_REVISIONS, meta.namespace)
        except (WriteRefused, TargetGone):
            return ()
        pods = pods_of(cluster.inventory, component.kind, meta.uid)
        found = []
        for held in listed:
            owners = held["metadata"].get("ownerReferences") or []
            if not any(owner.get("uid") == meta.uid for owner in owners):
                continue
            one = decoded({"metadata": held["metadata"]}, Workload).metadata
            hashes = {one.labels.get(_REVISION_LABEL, ""), one.name}
            own = tuple(pod for pod in pods if pod.metadata.labels.get(_REVISION_LABEL) in hashes)
            found.append(
                Revision(
                    number=int(held.get("revision", 0)),
                    name=one.name,
                    uid=one.uid,
                    label=own[0].metadata.labels[_REVISION_LABEL] if own else one.name,
                    created_at=one.creation_timestamp,
                    pods=own,
                )
            )
        return tuple(sorted(found, key=lambda revision: revision.number))

    async def limit_ranges(self, cluster: Cluster, namespace: str) -> list[JsonObject] | None:
        """None where they cannot be read."""
        try:
            return await self._objects.list(cluster.workspace.id, LIMIT_RANGES, namespace)
        except (WriteRefused, TargetGone):
            return None


def node_of(inventory: Inventory) -> Callable[[str], Node | None]:
    def find(name: str) -> Node | None:
        return inventory.get(NODE, Node, "", name) if known(inventory, NODE) else None

    return find


def quotas_of(cluster: Cluster, namespace: str) -> tuple[ResourceQuota, ...]:
    inventory = cluster.inventory
    return tuple(inventory.all(RESOURCE_QUOTA, ResourceQuota, namespace)) if known(inventory, RESOURCE_QUOTA) else ()


def _unreadable(workspace_id: str, error: WriteRefused) -> DependencyUnavailable:
    reason = f"the acting credentials may not read what healing needs ({error.reason})"
    return DependencyUnavailable(_API, reason, workspace_id=workspace_id, retry_after=60)
