"""Admission: namespaces that must exist, LimitRanges' defaults and bounds, quotas."""

from typing import TYPE_CHECKING

from opsapi.kit.quantity import parse_quantity
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import pod_defaults, quota
from opsapi.playground.machinery.status import failure, forbidden
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

check_quota = quota.check
_UNDELETABLE = ("default", "kube-system", "kube-public")


def admit_namespace(registry: "ObjectRegistry", kind: Kind, namespace: str, name: str) -> None:
    """Raises ApiError: 404 where the namespace is not there, 403 where it is going away."""
    if not kind.namespaced:
        return
    found = registry.find("namespaces", "", namespace)
    if found is None:
        details = {"name": namespace, "kind": "namespaces"}
        raise failure(404, "NotFound", f'namespaces "{namespace}" not found', details)
    if (found.get("status") or {}).get("phase") == "Terminating":
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        raise forbidden(kind, name, why, [cause])


def mutate_create(registry: "ObjectRegistry", kind: Kind, obj: Obj) -> None:
    """LimitRanges fill in what a pod's containers leave out and refuse what is out of bounds (403)."""
    if kind.resource == "persistentvolumeclaims":
        _with_default_class(registry, obj)
    if kind.resource != "pods":
        return
    namespace = obj["metadata"].get("namespace", "")
    _check_references(registry, kind, obj, namespace)
    problems: list[str] = []
    for limit_range in registry.iterate("limitranges", namespace):
        for item in (limit_range.get("spec") or {}).get("limits") or []:
            if item.get("type") == "Container":
                obj["spec"] = _with_defaults(obj["spec"], item)
                problems += _out_of_bounds(obj["spec"], item)
    if problems:
        told = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise forbidden(kind, obj["metadata"].get("name", ""), told)
    if obj.get("status"):
        obj["status"] = {**obj["status"], "qosClass": pod_defaults.qos_class(obj["spec"])}


def _with_default_class(registry: "ObjectRegistry", claim: Obj) -> None:
    """The DefaultStorageClass plugin."""
    if "storageClassName" in claim["spec"]:
        return
    for found in registry.iterate("storageclasses.storage.k8s.io"):
        annotations = found["metadata"].get("annotations") or {}
        if annotations.get("storageclass.kubernetes.io/is-default-class") == "true":
            claim["spec"] = {**claim["spec"], "storageClassName": found["metadata"]["name"]}
            return


def _check_references(registry: "ObjectRegistry", kind: Kind, pod: Obj, namespace: str) -> None:
    """The ServiceAccount and PriorityClass that a pod names have to exist; the default account comes of itself."""
    spec, name = pod["spec"], pod["metadata"].get("name", "")
    account = spec.get("serviceAccountName", "default")
    if account != "default" and registry.find("serviceaccounts", namespace, account) is None:
        why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden(kind, name, why)
    wanted = spec.get("priorityClassName")
    if wanted and registry.find("priorityclasses.scheduling.k8s.io", "", wanted) is None:
        raise forbidden(kind, name, f"no PriorityClass with name {wanted} was found")


def check_delete(kind: Kind, name: str) -> None:
    """Raises ApiError (403) for the namespaces that a cluster cannot do without."""
    if kind.resource == "namespaces" and name in _UNDELETABLE:
        raise forbidden(kind, name, "this namespace may not be deleted")


def _with_defaults(spec: Obj, item: Obj) -> Obj:
    limits, requests = item.get("default") or {}, item.get("defaultRequest") or {}
    if not limits and not requests:
        return spec
    made = dict(spec)
    for group in ("initContainers", "containers"):
        if made.get(group):
            made[group] = [_filled(one, limits, requests) for one in made[group]]
    return made


def _filled(one: Obj, limits: Obj, requests: Obj) -> Obj:
    held = one.get("resources") or {}
    filled = {
        **held,
        "limits": {**limits, **(held.get("limits") or {})},
        "requests": {**requests, **(held.get("requests") or {})},
    }
    resources = pod_defaults.resources({key: value for key, value in filled.items() if value})
    return one if resources == held else {**one, "resources": resources}


def _out_of_bounds(spec: Obj, item: Obj) -> list[str]:
    problems: list[str] = []
    for one in spec.get("containers") or []:
        held = one.get("resources") or {}
        limits, requests = held.get("limits") or {}, held.get("requests") or {}
        for name, bound in (item.get("max") or {}).items():
            if name not in limits:
                problems.append(f"maximum {name} usage per Container is {bound}.  No limit is specified")
            elif parse_quantity(limits[name]) > parse_quantity(bound):
                problems.append(f"maximum {name} usage per Container is {bound}, but limit is {limits[name]}")
        for name, bound in (item.get("min") or {}).items():
            if name not in requests:
                problems.append(f"minimum {name} usage per Container is {bound}.  No request is specified")
            elif parse_quantity(requests[name]) < parse_quantity(bound):
                problems.append(f"minimum {name} usage per Container is {bound}, but request is {requests[name]}")
    return problems
