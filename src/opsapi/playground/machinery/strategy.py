"""What an update may touch, when generations grow, and how a deletion begins: the registry strategies of the kinds."""

from datetime import datetime, timedelta

from opsapi.kit.clock import rfc3339
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery.objects import ordered
from opsapi.playground.registry import Obj

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"

_WITHOUT_GENERATION = frozenset(
    {
        "namespaces",
        "nodes",
        "services",
        "configmaps",
        "secrets",
        "serviceaccounts",
        "endpoints",
        "events",
        "limitranges",
        "resourcequotas",
        "persistentvolumes",
        "persistentvolumeclaims",
        "podtemplates",
        "horizontalpodautoscalers.autoscaling",
        "controllerrevisions.apps",
        "leases.coordination.k8s.io",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "storageclasses.storage.k8s.io",
        "csidrivers.storage.k8s.io",
        "csinodes.storage.k8s.io",
        "csistoragecapacities.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
        "certificatesigningrequests.certificates.k8s.io",
        "runtimeclasses.node.k8s.io",
        "apiservices.apiregistration.k8s.io",
    }
)
_RETURNS_OBJECT = frozenset(
    {
        "pods",
        "services",
        "persistentvolumes",
        "persistentvolumeclaims",
        "podtemplates",
        "resourcequotas",
        "serviceaccounts",
    }
)


def has_generation(kind: Kind) -> bool:
    return kind.custom or kind.resource not in _WITHOUT_GENERATION


def first_generation(kind: Kind) -> int | None:
    return 1 if has_generation(kind) else None


def returns_deleted_object(kind: Kind) -> bool:
    """Whether DELETE answers with the object (pods, services, …) or with a Status once it is gone."""
    return kind.resource in _RETURNS_OBJECT


def prepare_create(kind: Kind, obj: Obj) -> None:
    """Clients do not set status where it has its own subresource."""
    if kind.has_status and kind.resource not in ("nodes", "persistentvolumes") and "status" in obj:
        obj.pop("status")
    if kind.resource == "nodes":
        obj.setdefault("status", {})


def prepare_update(kind: Kind, made: Obj, old: Obj, subresource: str) -> Obj:
    """`made` with the parts that this subresource may not write taken from `old`."""
    if subresource == "status":
        return _status_only(made, old, kind)
    if subresource == "finalize":
        spec = {**(old.get("spec") or {}), "finalizers": (made.get("spec") or {}).get("finalizers", [])}
        return {**old, "metadata": dict(old["metadata"]), "spec": spec}
    if kind.has_status or (kind.custom and kind.subresource("status")):
        made = dict(made)
        made.pop("status", None)
        if "status" in old:
            made["status"] = old["status"]
    if kind.resource == "namespaces":
        made["spec"] = old.get("spec", {})
    return made


def _status_only(made: Obj, old: Obj, kind: Kind) -> Obj:
    meta = dict(old["metadata"])
    if not kind.custom:
        meta.pop("annotations", None)
        if made["metadata"].get("annotations"):
            meta["annotations"] = made["metadata"]["annotations"]
        if kind.resource == "nodes" and made["metadata"].get("labels"):
            meta["labels"] = made["metadata"]["labels"]
    result = {**old, "metadata": ordered(meta)}
    if made.get("status") is not None:
        result["status"] = made["status"]
    else:
        result.pop("status", None)
    return result


def bumps_generation(kind: Kind, new: Obj, old: Obj) -> bool:
    if not has_generation(kind):
        return False
    if _begins_deletion(new, old):
        return True
    if kind.resource == "pods":
        return _without_node(new.get("spec")) != _without_node(old.get("spec"))
    ignored: tuple[str, ...] = ("metadata", "kind", "apiVersion")
    if kind.has_status or not kind.custom:
        ignored = (*ignored, "status")
    keys = {key for key in (*new, *old) if key not in ignored}
    return any(new.get(key) != old.get(key) for key in keys)


def _without_node(spec: Obj | None) -> Obj:
    """Binding a pod to its node is no new generation."""
    return {key: value for key, value in (spec or {}).items() if key != "nodeName"}


def _begins_deletion(new: Obj, old: Obj) -> bool:
    return "deletionTimestamp" in new["metadata"] and "deletionTimestamp" not in old["metadata"]


def mark_deleted(kind: Kind, old: Obj, grace: int | None, propagation: str, now: datetime) -> Obj | None:
    """`old` on its way out; itself when it already is; None when nothing holds it and it can go at once."""
    if kind.resource == "namespaces":
        return _terminating_namespace(old, now)
    meta = old["metadata"]
    finalizers = _finalizers(meta.get("finalizers") or [], propagation)
    seconds = _pod_grace(old, grace) if kind.resource == "pods" else 0
    if not finalizers and seconds == 0:
        return None
    already = "deletionTimestamp" in meta
    if already and finalizers == (meta.get("finalizers") or []) and seconds >= meta["deletionGracePeriodSeconds"]:
        return old
    marked = dict(meta)
    if finalizers:
        marked["finalizers"] = finalizers
    else:
        marked.pop("finalizers", None)
    if not already or seconds < meta["deletionGracePeriodSeconds"]:
        marked["deletionTimestamp"] = rfc3339(now + timedelta(seconds=seconds))
        marked["deletionGracePeriodSeconds"] = seconds
    if not already and has_generation(kind):
        marked["generation"] = meta.get("generation", 0) + 1
    return {**old, "metadata": ordered(marked)}


def _terminating_namespace(old: Obj, now: datetime) -> Obj | None:
    meta = old["metadata"]
    held = meta.get("finalizers") or (old.get("spec") or {}).get("finalizers")
    if "deletionTimestamp" in meta:
        return old if held else None
    if not held:
        return None
    marked = ordered({**meta, "deletionTimestamp": rfc3339(now)})
    return {**old, "metadata": marked, "status": {**(old.get("status") or {}), "phase": "Terminating"}}


def _finalizers(present: list[str], propagation: str) -> list[str]:
    kept = [one for one in present if one not in (FOREGROUND, ORPHAN)]
    if propagation == "Foreground":
        return [*kept, FOREGROUND]
    if propagation == "Orphan":
        return [*kept, ORPHAN]
    if propagation == "Background":
        return kept
    return list(present)


def _pod_grace(pod: Obj, asked: int | None) -> int:
    spec = pod.get("spec") or {}
    if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if asked is not None:
        return max(asked, 0)
    return int(spec.get("terminationGracePeriodSeconds", 30))
