"""Orphans find their parents: pods, ReplicaSets and revisions that a selector matches and nobody controls.

After pkg/controller/controller_ref_manager.go. It is what makes a restore from a backup, which knows no owners, whole.
"""

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster
from opsapi.playground.controllers.queue import Controller
from opsapi.playground.registry import Change, ChangeType, Obj
from opsapi.playground.selection import matches

_PARENTS: dict[str, tuple[str, ...]] = {
    "pods": ("replicasets.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch"),
    "replicasets.apps": ("deployments.apps",),
    "controllerrevisions.apps": ("statefulsets.apps", "daemonsets.apps"),
}
_CHILDREN: dict[str, list[str]] = {}
for _child, _parents in _PARENTS.items():
    for _parent in _parents:
        _CHILDREN.setdefault(_parent, []).append(_child)


class AdoptionController(Controller):
    """Its keys are `namespace/resource/name` of orphans, which are few: what has a controller never comes here."""

    name = "adoption"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.clock)
        self.registry = cluster.registry
        self._orphans: dict[str, set[tuple[str, str]]] = {}
        for resource in _PARENTS:
            self.registry.subscribe(resource, self._child_changed)
        for resource in _CHILDREN:
            self.registry.subscribe(resource, self._parent_changed)

    def _child_changed(self, change: Change) -> None:
        meta = change.new["metadata"]
        known = self._orphans.setdefault(meta["namespace"], set())
        key = (change.resource, meta["name"])
        if change.type is ChangeType.DELETED or pods.controller_of(change.new) is not None:
            known.discard(key)
            return
        known.add(key)
        before = (change.old or {}).get("metadata") or {}
        if change.old is None or any(before.get(part) != meta.get(part) for part in ("labels", "ownerReferences")):
            self.queue.add(f"{meta['namespace']}/{change.resource}/{meta['name']}")

    def _parent_changed(self, change: Change) -> None:
        if change.type is not ChangeType.ADDED:
            return
        namespace = change.new["metadata"]["namespace"]
        for resource, name in sorted(self._orphans.get(namespace, ())):
            if resource in _CHILDREN[change.resource]:
                self.queue.add(f"{namespace}/{resource}/{name}")

    def sync(self, namespace: str, name: str) -> None:
        resource, _, child_name = name.partition("/")
        child = self.registry.find(resource, namespace, child_name)
        if child is None or pods.is_terminating(child) or pods.controller_of(child) is not None:
            return
        if resource == "pods" and pods.is_finished(child):
            return
        for parents in _PARENTS[resource]:
            for parent in self.registry.iterate(parents, namespace):
                if not pods.is_terminating(parent) and _suits(parent, child):
                    self._adopt(resource, child, parent)
                    return

    def _adopt(self, resource: str, child: Obj, parent: Obj) -> None:
        meta = child["metadata"]
        owners = [*(meta.get("ownerReferences") or []), pods.owner_reference(parent)]
        changed = {**child, "metadata": {**meta, "ownerReferences": owners}}
        self.registry.update(resource, meta["namespace"], meta["name"], changed)


def _suits(parent: Obj, child: Obj) -> bool:
    if not matches(parent["spec"].get("selector"), child["metadata"].get("labels")):
        return False
    if parent["kind"] == "StatefulSet" and child["kind"] == "Pod":
        prefix, _, tail = child["metadata"]["name"].rpartition("-")
        return bool(prefix == parent["metadata"]["name"] and tail.isdigit())
    return True
