"""What the server gives an object beyond its defaults: addresses, protecting finalizers, selectors, admitted pods."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import pod_defaults, services
from opsapi.playground.machinery.defaults import TEMPLATE_GENERATION
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry


def allocate(registry: "ObjectRegistry", kind: Kind, obj: Obj) -> None:
    """On create; nobody owns what this sets."""
    if kind.custom:
        return
    handler = _ON_CREATE.get(kind.resource)
    if handler is not None:
        handler(registry, obj)


def reallocate(registry: "ObjectRegistry", kind: Kind, obj: Obj, old: Obj) -> None:
    """On update."""
    if kind.resource == "services":
        services.allocate(registry, obj, old)
    elif kind.resource == "daemonsets.apps":
        generation = int((old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "1"))
        if old["spec"].get("template") != obj["spec"].get("template"):
            generation += 1
        _annotate_template(obj, generation)


def _namespace(_: "ObjectRegistry", obj: Obj) -> None:
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}


def _pod(registry: "ObjectRegistry", obj: Obj) -> None:
    obj["spec"] = registry.pod_specs.admitted(obj.get("spec") or {})
    obj["status"] = {"phase": "Pending", "qosClass": pod_defaults.qos_class(obj["spec"])}


def _service(registry: "ObjectRegistry", obj: Obj) -> None:
    services.allocate(registry, obj, None)


def _annotate_template(obj: Obj, generation: int) -> None:
    meta = obj["metadata"]
    meta["annotations"] = {**(meta.get("annotations") or {}), TEMPLATE_GENERATION: str(generation)}


def _job(registry: "ObjectRegistry", obj: Obj) -> None:
    uid = registry.identity.uid()
    obj["metadata"]["uid"] = uid
    spec = dict(obj["spec"])
    if not spec["manualSelector"]:
        _label_job(spec, obj["metadata"].get("name", ""), uid)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = labels
    obj["spec"] = spec


def _label_job(spec: dict[str, Any], name: str, uid: str) -> None:
    template = dict(spec["template"])
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    template["metadata"] = metadata
    spec["template"] = template
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _protect(finalizer: str) -> Callable[["ObjectRegistry", Obj], None]:
    def add(_: "ObjectRegistry", obj: Obj) -> None:
        meta = obj["metadata"]
        present = meta.get("finalizers") or []
        if finalizer not in present:
            meta["finalizers"] = [*present, finalizer]
        obj.setdefault("status", {"phase": "Pending"})

    return add


def _definition(_: "ObjectRegistry", obj: Obj) -> None:
    stored = [version["name"] for version in obj["spec"].get("versions") or [] if version.get("storage")]
    obj["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}


_ON_CREATE: dict[str, Callable[["ObjectRegistry", Obj], None]] = {
    "namespaces": _namespace,
    "pods": _pod,
    "services": _service,
    "jobs.batch": _job,
    "persistentvolumeclaims": _protect("kubernetes.io/pvc-protection"),
    "customresourcedefinitions.apiextensions.k8s.io": _definition,
    "persistentvolumes": _protect("kubernetes.io/pv-protection"),
}
