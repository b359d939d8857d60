"""Validation of writes, with the field errors that the API server answers."""

from typing import TYPE_CHECKING

from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import names
from opsapi.playground.machinery.kind_rules import CREATE_RULES, UPDATE_RULES
from opsapi.playground.machinery.status import (
    Cause,
    forbidden_field,
    invalid,
    invalid_value,
    required,
)
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

_NAME_RULES = {
    "namespaces": names.label,
    "services": names.label_1035,
    "roles.rbac.authorization.k8s.io": names.path_segment,
    "rolebindings.rbac.authorization.k8s.io": names.path_segment,
    "clusterroles.rbac.authorization.k8s.io": names.path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": names.path_segment,
}
_TOTAL_ANNOTATIONS = 256 << 10


def validate_create(registry: "ObjectRegistry", kind: Kind, obj: Obj) -> None:
    """Raises ApiError (422) naming every field that is wrong."""
    causes = _metadata(kind, obj["metadata"])
    if kind.custom:
        causes += registry.custom.validate(kind, obj)
    else:
        rules = CREATE_RULES.get(kind.resource)
        if rules is not None:
            causes += rules(registry, obj)
    _raise(kind, obj, causes)


def validate_update(registry: "ObjectRegistry", kind: Kind, obj: Obj, old: Obj, subresource: str) -> None:
    """Raises ApiError (422)."""
    causes = _metadata(kind, obj["metadata"])
    if "deletionTimestamp" in old["metadata"]:
        added = [
            one
            for one in obj["metadata"].get("finalizers") or []
            if one not in (old["metadata"].get("finalizers") or [])
        ]
        if added:
            why = (
                f"no new finalizers can be added if the object is being deleted, found new finalizers {_go_list(added)}"
            )
            causes.append(forbidden_field("metadata.finalizers", why))
    if kind.custom:
        causes += registry.custom.validate(kind, obj)
    elif subresource == "":
        create_rules, update_rules = CREATE_RULES.get(kind.resource), UPDATE_RULES.get(kind.resource)
        if create_rules is not None:
            causes += create_rules(registry, obj)
        if update_rules is not None:
            causes += update_rules(obj, old)
    _raise(kind, obj, causes)


def _raise(kind: Kind, obj: Obj, causes: list[Cause]) -> None:
    if causes:
        raise invalid(kind.group, kind.kind, obj["metadata"].get("name", ""), causes)


def _metadata(kind: Kind, meta: Obj) -> list[Cause]:
    causes: list[Cause] = []
    name = meta.get("name", "")
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        rule = _NAME_RULES.get(kind.resource, names.subdomain)
        causes.extend(invalid_value("metadata.name", name, why) for why in rule(name))
    for key, value in (meta.get("labels") or {}).items():
        causes.extend(invalid_value("metadata.labels", key, why) for why in names.qualified(key))
        causes.extend(invalid_value("metadata.labels", value, why) for why in names.label_value(value))
    annotations = meta.get("annotations") or {}
    for key in annotations:
        causes.extend(invalid_value("metadata.annotations", key, why) for why in names.qualified(key.lower()))
    if annotations and sum(len(key) + len(value) for key, value in annotations.items()) > _TOTAL_ANNOTATIONS:
        causes.append(
            Cause(
                "FieldValueTooLong",
                f"Too long: may not be more than {_TOTAL_ANNOTATIONS} bytes",
                "metadata.annotations",
            )
        )
    causes.extend(_owners(meta))
    for one in meta.get("finalizers") or []:
        causes.extend(invalid_value("metadata.finalizers", one, why) for why in names.qualified(one))
    return causes


def _owners(meta: Obj) -> list[Cause]:
    causes: list[Cause] = []
    controllers = 0
    for index, owner in enumerate(meta.get("ownerReferences") or []):
        at = f"metadata.ownerReferences[{index}]"
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                empty = "version must not be empty" if name == "apiVersion" else f"{name} must not be empty"
                causes.append(invalid_value(f"{at}.{name}", owner.get(name, ""), empty))
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        why = "Only one reference can have Controller set to true"
        causes.append(invalid_value("metadata.ownerReferences", meta["ownerReferences"], why))
    return causes


def _go_list(values: list[str]) -> str:
    return "[]string{" + ", ".join(f'"{one}"' for one in values) + "}"
