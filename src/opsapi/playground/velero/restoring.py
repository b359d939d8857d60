"""How one stored object becomes one to create: without what the old cluster knew of it, in the order Velero keeps."""

from typing import Any

from opsapi.playground.registry import Obj
from opsapi.playground.velero.storage import BACKUP_NAME, RESTORE_NAME, Item

FIRST = (
    "customresourcedefinitions.apiextensions.k8s.io",
    "namespaces",
    "storageclasses.storage.k8s.io",
    "volumesnapshotclasses.snapshot.storage.k8s.io",
    "volumesnapshotcontents.snapshot.storage.k8s.io",
    "volumesnapshots.snapshot.storage.k8s.io",
    "persistentvolumes",
    "persistentvolumeclaims",
    "clusterroles.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "serviceaccounts",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "secrets",
    "configmaps",
    "limitranges",
    "priorityclasses.scheduling.k8s.io",
    "pods",
    "replicasets.apps",
    "endpoints",
    "services",
)
NEVER = frozenset(
    {
        "nodes",
        "events",
        "backups.velero.io",
        "restores.velero.io",
        "backuprepositories.velero.io",
        "csinodes.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
    }
)
"""What Velero never restores."""
LEFT_TO_CONTROLLERS = frozenset({"endpoints", "endpointslices.discovery.k8s.io"})
"""What the playground's controllers make again by themselves, whole, before a restore could compare it."""
_RESET = (
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "managedFields",
)
_JOB_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid")


def order_of(item: Item) -> tuple[int, str, str, str]:
    place = FIRST.index(item.resource) if item.resource in FIRST else len(FIRST)
    return place, item.resource, item.namespace, item.name


def is_over(item: Item) -> bool:
    """Pods and Jobs that have ended are not brought back."""
    status = item.obj.get("status") or {}
    if item.resource == "pods":
        return status.get("phase") in ("Succeeded", "Failed")
    return item.resource == "jobs.batch" and bool(status.get("completionTime"))


def plain(obj: Obj) -> Obj:
    """An object without identity, ownership and status: what two copies of it are compared by."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in _RESET}
    labels = {key: one for key, one in (meta.get("labels") or {}).items() if key not in (BACKUP_NAME, RESTORE_NAME)}
    meta["labels"] = labels
    if not labels:
        del meta["labels"]
    made = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    return {**made, "metadata": meta}


def prepared(item: Item, namespace: str, restore: Obj) -> Obj:
    """The object to create in `namespace` ("" for cluster-scoped ones), labelled with restore and backup."""
    made = plain(item.obj)
    meta = dict(made["metadata"])
    if namespace:
        meta["namespace"] = namespace
    spec = restore["spec"]
    meta["labels"] = {
        **(meta.get("labels") or {}),
        BACKUP_NAME: spec["backupName"],
        RESTORE_NAME: restore["metadata"]["name"],
    }
    made["metadata"] = meta
    change = _CHANGES.get(item.resource)
    return made if change is None else change(made, spec)


def _pod(pod: Obj, _spec: Obj) -> Obj:
    dropped = ("nodeName", "priority") if pod["spec"].get("priorityClassName") else ("nodeName",)
    return {**pod, "spec": {key: value for key, value in pod["spec"].items() if key not in dropped}}


def _service(service: Obj, spec: Obj) -> Obj:
    made = dict(service["spec"])
    if made.get("clusterIP") != "None":
        made.pop("clusterIP", None)
        made.pop("clusterIPs", None)
    made.pop("healthCheckNodePort", None)
    if not spec.get("preserveNodePorts") and made.get("ports"):
        made["ports"] = [{key: one for key, one in port.items() if key != "nodePort"} for port in made["ports"]]
    return {**service, "spec": made}


def _job(job: Obj, _spec: Obj) -> Obj:
    spec = {key: value for key, value in job["spec"].items() if key != "selector"}
    template = spec["template"]
    meta = template.get("metadata") or {}
    labels = {key: one for key, one in (meta.get("labels") or {}).items() if key not in _JOB_LABELS}
    spec["template"] = {**template, "metadata": {**meta, "labels": labels}}
    own = {key: one for key, one in job["metadata"]["labels"].items() if key not in _JOB_LABELS}
    return {**job, "metadata": {**job["metadata"], "labels": own}, "spec": spec}


def _volume(volume: Obj, _spec: Obj) -> Obj:
    """A kept volume waits for the claim of its name again, whatever the new one's uid."""
    ref = volume["spec"].get("claimRef")
    if not ref:
        return volume
    kept = {key: one for key, one in ref.items() if key not in ("uid", "resourceVersion")}
    return {**volume, "spec": {**volume["spec"], "claimRef": kept}}


_CHANGES: dict[str, Any] = {"pods": _pod, "services": _service, "jobs.batch": _job, "persistentvolumes": _volume}
