"""What a cluster does by itself to keep its objects in order, whatever runs in it.

Garbage collection (background, foreground, orphan), the life and death of namespaces, what every namespace gets, the
conditions of CustomResourceDefinitions, and the finalizers that protect volumes in use. Driven by the store's events:
callbacks only enqueue, `drain` does the work.
"""

import logging
from collections import deque
from collections.abc import Callable

from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.machinery.strategy import FOREGROUND, ORPHAN
from opsapi.playground.registry import ApiError, Change, ChangeType, Obj

_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_CLAIM_PROTECTION = "kubernetes.io/pvc-protection"
_VOLUME_PROTECTION = "kubernetes.io/pv-protection"
_CONTENT_CONDITIONS = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
)

_ROOT_CA_ABOUT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)

log = logging.getLogger(__name__)
Task = tuple[str, str, str, str]
"""(what, resource, namespace, name)"""


class Housekeeping:
    """`wake` is called when the queue stops being empty: a server schedules `drain` then; tests may call it at will.

    `root_ca` is the certificate that every namespace's kube-root-ca.crt shows.
    """

    def __init__(self, registry: ObjectRegistry, *, wake: Callable[[], None] | None = None, root_ca: str = "") -> None:
        self._registry = registry
        self._queue: deque[Task] = deque()
        self._queued: set[Task] = set()
        self._owners: dict[str, tuple[str, str, str]] = {}
        self.wake = wake
        self.root_ca = root_ca
        self._unsubscribe = registry.subscribe("*", self._notice)

    def close(self) -> None:
        self._unsubscribe()

    def drain(self, limit: int = 100_000) -> int:
        """Does what is queued and what that queues; how many tasks that were."""
        done = 0
        while self._queue and done < limit:
            task = self._queue.popleft()
            self._queued.discard(task)
            done += 1
            try:
                self._do(task)
            except ApiError as error:
                if error.code not in (404, 409):
                    log.warning("housekeeping could not %s %s %s/%s: %s", *task, error)
        return done

    def _enqueue(self, *task: str) -> None:
        what, resource, namespace, name = task
        made: Task = (what, resource, namespace, name)
        if made in self._queued:
            return
        self._queued.add(made)
        self._queue.append(made)
        if len(self._queue) == 1 and self.wake is not None:
            self.wake()

    def _notice(self, change: Change) -> None:
        meta = change.new["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        resource = change.resource
        if change.type is ChangeType.DELETED:
            self._enqueue("dependents", resource, namespace, meta["uid"])
            for owner in meta.get("ownerReferences") or ():
                self._enqueue("owner", "", namespace, owner["uid"])
            if namespace:
                self._enqueue("namespace", "namespaces", "", namespace)
            if resource == "pods":
                self._release_claims(change.new)
            return
        if meta.get("ownerReferences") and change.type is ChangeType.ADDED:
            self._enqueue("orphaned", resource, namespace, name)
        if "deletionTimestamp" in meta:
            finalizers = meta.get("finalizers") or ()
            if FOREGROUND in finalizers or ORPHAN in finalizers:
                self._owners[meta["uid"]] = (resource, namespace, name)
                self._enqueue("foreground" if FOREGROUND in finalizers else "orphan", resource, namespace, name)
            if _CLAIM_PROTECTION in finalizers or _VOLUME_PROTECTION in finalizers:
                self._enqueue("protection", resource, namespace, name)
        if resource == "namespaces":
            self._enqueue("namespace", resource, "", name)
        elif resource == _DEFINITIONS:
            self._enqueue("definition", resource, "", name)

    def _do(self, task: Task) -> None:
        what, resource, namespace, name = task
        if what == "dependents":
            self._collect_dependents(name)
        elif what == "owner":
            self._owner_lost_dependent(name)
        elif what == "orphaned":
            self._collect_if_ownerless(resource, namespace, name)
        elif what == "foreground":
            self._foreground(resource, namespace, name)
        elif what == "orphan":
            self._orphan(resource, namespace, name)
        elif what == "namespace":
            self._namespace(name)
        elif what == "definition":
            self._definition(name)
        elif what == "protection":
            self._protection(resource, namespace, name)

    # Garbage collection

    def _collect_dependents(self, uid: str) -> None:
        for resource in self._registry.store.owned_resources(uid):
            for dependent in self._registry.by_owner(uid, resource):
                meta = dependent["metadata"]
                self._collect_if_ownerless(resource, meta.get("namespace", ""), meta["name"])

    def _collect_if_ownerless(self, resource: str, namespace: str, name: str) -> None:
        """Deletes an object none of whose owners exists; drops the references to those that do not."""
        obj = self._registry.find(resource, namespace, name)
        if obj is None:
            return
        owners = obj["metadata"].get("ownerReferences") or []
        solid = [owner for owner in owners if self._exists(owner, namespace)]
        if len(solid) == len(owners):
            return
        if solid:
            meta = {**obj["metadata"], "ownerReferences": solid}
            self._registry.update(resource, namespace, name, {**obj, "metadata": meta})
        elif "deletionTimestamp" not in obj["metadata"]:
            finalizers = obj["metadata"].get("finalizers") or []
            how = "Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background"
            self._registry.delete(resource, namespace, name, propagation=how, uid=obj["metadata"]["uid"])

    def _exists(self, owner: Obj, namespace: str) -> bool:
        group = owner["apiVersion"].rpartition("/")[0]
        kind = self._registry.kinds.storage_of(group, owner["kind"])
        if kind is None:
            return True
        found = self._registry.find(kind.resource, namespace if kind.namespaced else "", owner["name"])
        return found is not None and found["metadata"]["uid"] == owner["uid"]

    def _owner_lost_dependent(self, uid: str) -> None:
        owner = self._owners.get(uid)
        if owner is not None:
            self._foreground(*owner)

    def _foreground(self, resource: str, namespace: str, name: str) -> None:
        obj = self._registry.find(resource, namespace, name)
        if obj is None or FOREGROUND not in (obj["metadata"].get("finalizers") or []):
            return
        uid = obj["metadata"]["uid"]
        blocked = False
        for dependent_resource in self._registry.store.owned_resources(uid):
            for dependent in self._registry.by_owner(uid, dependent_resource):
                meta = dependent["metadata"]
                owner = next(one for one in meta["ownerReferences"] if one["uid"] == uid)
                blocked = blocked or bool(owner.get("blockOwnerDeletion"))
                if "deletionTimestamp" not in meta:
                    where = meta.get("namespace", "")
                    self._registry.delete(dependent_resource, where, meta["name"], propagation="Foreground")
        still = any(self._registry.store.owned(uid, one) for one in self._registry.store.owned_resources(uid))
        if not (blocked and still):
            self._owners.pop(uid, None)
            self._without_finalizer(obj, resource, FOREGROUND)

    def _orphan(self, resource: str, namespace: str, name: str) -> None:
        obj = self._registry.find(resource, namespace, name)
        if obj is None or ORPHAN not in (obj["metadata"].get("finalizers") or []):
            return
        uid = obj["metadata"]["uid"]
        for dependent_resource in self._registry.store.owned_resources(uid):
            for dependent in self._registry.by_owner(uid, dependent_resource):
                meta = dependent["metadata"]
                owners = [one for one in meta["ownerReferences"] if one["uid"] != uid]
                freed = {**dependent, "metadata": {**meta, "ownerReferences": owners}}
                self._registry.update(dependent_resource, meta.get("namespace", ""), meta["name"], freed)
        self._owners.pop(uid, None)
        self._without_finalizer(obj, resource, ORPHAN)

    def _without_finalizer(self, obj: Obj, resource: str, finalizer: str) -> None:
        meta = obj["metadata"]
        kept = [one for one in meta.get("finalizers") or [] if one != finalizer]
        freed = {**obj, "metadata": {**meta, "finalizers": kept}}
        self._registry.update(resource, meta.get("namespace", ""), meta["name"], freed)

    # Namespaces

    def _namespace(self, name: str) -> None:
        found = self._registry.find("namespaces", "", name)
        if found is None:
            return
        if "deletionTimestamp" in found["metadata"]:
            self._empty(found)
        elif (found.get("status") or {}).get("phase") == "Active":
            self._furnish(name)

    def _furnish(self, name: str) -> None:
        if self._registry.find("serviceaccounts", name, "default") is None:
            self._registry.create("serviceaccounts", name, {"metadata": {"name": "default"}})
        if self._registry.find("configmaps", name, "kube-root-ca.crt") is None:
            annotations = {"kubernetes.io/description": _ROOT_CA_ABOUT}
            made = {
                "metadata": {"name": "kube-root-ca.crt", "annotations": annotations},
                "data": {"ca.crt": self.root_ca},
            }
            self._registry.create("configmaps", name, made)

    def _empty(self, namespace: Obj) -> None:
        name = namespace["metadata"]["name"]
        remaining: dict[str, int] = {}
        for kind in list(self._registry.kinds.storage_kinds()):
            if not kind.namespaced:
                continue
            for obj in list(self._registry.iterate(kind.resource, name)):
                meta = obj["metadata"]
                if "deletionTimestamp" not in meta:
                    self._registry.delete(kind.resource, name, meta["name"], propagation="Background")
            left = self._registry.store.count(kind.resource, name)
            if left:
                remaining[kind.group_resource] = left
        if remaining:
            self._report_remaining(name, remaining)
            return
        found = self._registry.get("namespaces", "", name)
        freed = {**found, "spec": {"finalizers": []}}
        self._registry.update("namespaces", "", name, freed, subresource="finalize")

    def _report_remaining(self, name: str, remaining: dict[str, int]) -> None:
        found = self._registry.get("namespaces", "", name)
        now = self._registry.now()
        counts = ", ".join(
            f"{resource} has {count} resource instances" for resource, count in sorted(remaining.items())
        )
        conditions = [
            {"type": kind, "status": "False", "lastTransitionTime": now, "reason": reason, "message": message}
            for kind, reason, message in _CONTENT_CONDITIONS
        ]
        conditions.append(
            {
                "type": "NamespaceContentRemaining",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "SomeResourcesRemain",
                "message": f"Some resources are remaining: {counts}",
            }
        )
        conditions.append(
            {
                "type": "NamespaceFinalizersRemaining",
                "status": "False",
                "lastTransitionTime": now,
                "reason": "ContentHasNoFinalizers",
                "message": "All content-preserving finalizers finished",
            }
        )
        status = {**(found.get("status") or {}), "conditions": _kept_times(found, conditions)}
        self._registry.patch_status("namespaces", "", name, status)

    # CustomResourceDefinitions and volumes

    def _definition(self, name: str) -> None:
        found = self._registry.find(_DEFINITIONS, "", name)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return
        if (found.get("status") or {}).get("conditions"):
            return
        now = self._registry.now()
        conditions = [
            {
                "type": "NamesAccepted",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "NoConflicts",
                "message": "no conflicts found",
            },
            {
                "type": "Established",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "InitialNamesAccepted",
                "message": "the initial names have been accepted",
            },
        ]
        status = {
            "conditions": conditions,
            "acceptedNames": found["spec"]["names"],
            "storedVersions": (found.get("status") or {}).get("storedVersions") or [],
        }
        self._registry.patch_status(_DEFINITIONS, "", name, status)

    def _release_claims(self, pod: Obj) -> None:
        namespace = pod["metadata"]["namespace"]
        for volume in (pod.get("spec") or {}).get("volumes") or []:
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim:
                self._enqueue("protection", "persistentvolumeclaims", namespace, claim)

    def _protection(self, resource: str, namespace: str, name: str) -> None:
        """Lets a claim go that no running pod mounts, and a volume that no claim is bound to."""
        obj = self._registry.find(resource, namespace, name)
        if obj is None or "deletionTimestamp" not in obj["metadata"]:
            return
        if resource == "persistentvolumes":
            if (obj.get("status") or {}).get("phase") != "Bound":
                self._without_finalizer(obj, resource, _VOLUME_PROTECTION)
            return
        mounted = any(
            (volume.get("persistentVolumeClaim") or {}).get("claimName") == name
            for pod in self._registry.iterate("pods", namespace)
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            for volume in pod["spec"].get("volumes") or []
        )
        if not mounted:
            self._without_finalizer(obj, resource, _CLAIM_PROTECTION)


def _kept_times(namespace: Obj, conditions: list[Obj]) -> list[Obj]:
    before = {one["type"]: one for one in (namespace.get("status") or {}).get("conditions") or []}
    kept = []
    for one in conditions:
        earlier = before.get(one["type"])
        same = earlier is not None and earlier["status"] == one["status"]
        kept.append({**one, "lastTransitionTime": earlier["lastTransitionTime"]} if same and earlier else one)
    return kept
