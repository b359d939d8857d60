"""The resize subresource of pods: what it takes of what was sent, and what it refuses."""

from opsapi.playground.machinery import pod_defaults
from opsapi.playground.machinery.pod_rules import resource_causes
from opsapi.playground.machinery.status import Cause, forbidden_field, invalid_value
from opsapi.playground.registry import Obj

_PARTS = ("containers", "initContainers")
_RESIZABLE = ("cpu", "memory")


def resized(old: Obj, new: Obj) -> Obj:
    """`old` with the resources and resize policies of `new`: everything else that was sent is dropped."""
    spec = dict(old["spec"])
    for part in _PARTS:
        if spec.get(part):
            spec[part] = _containers(spec[part], new["spec"].get(part) or [])
    meta = dict(old["metadata"])
    # The preconditions that a client may set.
    meta |= {part: new["metadata"][part] for part in ("uid", "resourceVersion") if new["metadata"].get(part)}
    return {**old, "metadata": meta, "spec": spec}


def _containers(old: list[Obj], new: list[Obj]) -> list[Obj]:
    wanted = {one["name"]: one for one in new}
    made = []
    for one in old:
        found = wanted.get(one["name"], one)
        kept: Obj = {key: found[key] for key in ("resources", "resizePolicy") if key in found}
        made.append({**one, "resources": {}, **kept})
    return made


def causes_of(made: Obj, old: Obj, sent: Obj) -> list[Cause]:
    """The field errors of a resize; `made` is what `resized` gave."""
    causes: list[Cause] = []
    for part in _PARTS:
        for index, one in enumerate(made["spec"].get(part) or []):
            causes += resource_causes(f"spec.{part}[{index}].resources", one.get("resources") or {})
    before, after = pod_defaults.qos_class(old["spec"]), pod_defaults.qos_class(made["spec"])
    if before != after:
        causes.append(invalid_value("spec", before, "Pod QOS Class may not change as a result of resizing"))
    if not _reports_resources(old):
        causes.append(forbidden_field("spec", "Pod running on node without support for resize"))
    for part in _PARTS:
        causes += _changes(part, old["spec"].get(part) or [], made["spec"].get(part) or [])
    if _other_resources(made) != _other_resources(old):
        causes.append(forbidden_field("spec", "only cpu and memory resources are mutable"))
    names = [one["name"] for one in sent["spec"].get("containers") or []]
    if names != [one["name"] for one in old["spec"]["containers"]]:
        causes.append(forbidden_field("spec", "containers may not be renamed or reordered on resize"))
    return causes


def _changes(part: str, old: list[Obj], new: list[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, (was, now) in enumerate(zip(old, new, strict=True)):
        at = f"spec.{part}[{index}].resources"
        before, after = was.get("resources") or {}, now.get("resources") or {}
        if part == "initContainers" and was.get("restartPolicy") != "Always":
            if before != after:
                causes.append(forbidden_field(at, "resources for non-sidecar init containers are immutable"))
            continue
        for kind in ("requests", "limits"):
            gone = [name for name in before.get(kind) or {} if name not in (after.get(kind) or {})]
            if any(name in _RESIZABLE for name in gone):
                causes.append(forbidden_field(f"{at}.{kind}", f"resource {kind} cannot be removed"))
    return causes


def _other_resources(pod: Obj) -> list[Obj]:
    return [
        {
            name: amount
            for name, amount in ((one.get("resources") or {}).get(kind) or {}).items()
            if name not in _RESIZABLE
        }
        for part in _PARTS
        for one in pod["spec"].get(part) or []
        for kind in ("requests", "limits")
    ]


def _reports_resources(pod: Obj) -> bool:
    for one in (pod.get("status") or {}).get("containerStatuses") or []:
        if (one.get("state") or {}).get("running") is not None:
            return one.get("resources") is not None
    return True
