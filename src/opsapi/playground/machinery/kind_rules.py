"""What each kind's spec has to satisfy."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from opsapi.playground.machinery import names
from opsapi.playground.machinery.label_selectors import selector_causes
from opsapi.playground.machinery.pod_rules import pod_spec_causes, pod_update_causes
from opsapi.playground.machinery.status import Cause, forbidden_field, invalid_value, not_supported, required, too_long
from opsapi.playground.machinery.workload_rules import (
    IMMUTABLE,
    cron_job,
    daemon_set,
    deployment,
    immutable_selector,
    int_or_percent,
    job,
    job_update,
    replica_set,
    replication_controller,
    stateful_update,
)
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

_MAX_DATA = 1 << 20
_DATA_LIMIT = 1048576


def _pod(registry: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    if registry.pod_specs.valid.get(spec):
        return []
    causes = pod_spec_causes("spec", spec)
    if not causes:
        registry.pod_specs.valid.put(spec, True)
    return causes


def _data(obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    total = 0
    for part in ("data", "binaryData"):
        for key, value in (obj.get(part) or {}).items():
            causes.extend(invalid_value(f"{part}[{key}]", key, why) for why in names.config_key(key))
            total += len(value or "")
    if total > _MAX_DATA:
        causes.append(too_long("", _DATA_LIMIT))
    return causes


def _data_update(obj: Obj, old: Obj) -> list[Cause]:
    causes: list[Cause] = []
    if old.get("immutable"):
        if not obj.get("immutable"):
            causes.append(forbidden_field("immutable", "field is immutable when `immutable` is set"))
        causes.extend(
            forbidden_field(part, "field is immutable when `immutable` is set")
            for part in ("data", "binaryData")
            if obj.get(part) != old.get(part)
        )
    if obj["kind"] == "Secret" and obj.get("type") != old.get("type"):
        causes.append(invalid_value("type", obj.get("type"), IMMUTABLE))
    return causes


_SERVICE_TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]


def _service(registry: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("type") not in _SERVICE_TYPES:
        causes.append(not_supported("spec.type", spec.get("type"), _SERVICE_TYPES))
    headless = spec.get("clusterIP") == "None" or spec.get("type") == "ExternalName"
    ports = spec.get("ports") or []
    if not ports and not headless:
        causes.append(required("spec.ports"))
    for index, port in enumerate(ports):
        causes += _service_port(f"spec.ports[{index}]", port, len(ports) > 1)
    holder = registry.addresses.holder(spec.get("clusterIP", ""))
    if holder is not None and holder != obj["metadata"].get("uid"):
        why = f"failed to allocate IP {spec['clusterIP']}: provided IP is already allocated"
        causes.append(invalid_value("spec.clusterIPs", spec.get("clusterIPs"), why))
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        causes.append(required("spec.externalName"))
    return causes


def _service_port(at: str, port: Obj, several: bool) -> list[Cause]:
    causes: list[Cause] = []
    if several and not port.get("name"):
        causes.append(required(f"{at}.name"))
    elif port.get("name"):
        causes.extend(invalid_value(f"{at}.name", port["name"], why) for why in names.label(port["name"]))
    number = port.get("port", 0)
    if not 1 <= number <= 65535:
        causes.append(invalid_value(f"{at}.port", number, "must be between 1 and 65535, inclusive"))
    if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
        causes.append(not_supported(f"{at}.protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"]))
    return causes


def _service_update(obj: Obj, old: Obj) -> list[Cause]:
    new, before = obj["spec"], old["spec"]
    if "ExternalName" in (new.get("type"), before.get("type")):
        return []
    if before.get("clusterIP") and new.get("clusterIP") != before["clusterIP"]:
        value = new.get("clusterIPs") or [new.get("clusterIP")]
        return [invalid_value("spec.clusterIPs[0]", value, "may not change once set")]
    return []


def _claim(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("accessModes"):
        causes.append(required("spec.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        causes.append(required("spec.resources[storage]"))
    return causes


def _claim_update(obj: Obj, old: Obj) -> list[Cause]:
    ignored: tuple[str, ...] = ("resources", "volumeName", "volumeAttributesClassName")
    if "storageClassName" not in old["spec"]:
        # The volume controller gives claims without a class the default one that came later.
        ignored = (*ignored, "storageClassName")
    new = {key: value for key, value in obj["spec"].items() if key not in ignored}
    before = {key: value for key, value in old["spec"].items() if key not in ignored}
    if new != before:
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        return [forbidden_field("spec", why)]
    return []


def _autoscaler(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    low, high = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if low < 1:
        causes.append(invalid_value("spec.minReplicas", low, "must be greater than or equal to 1"))
    if high < 1:
        causes.append(invalid_value("spec.maxReplicas", high, "must be greater than 0"))
    if high < low:
        causes.append(invalid_value("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    target = spec.get("scaleTargetRef") or {}
    causes.extend(required(f"spec.scaleTargetRef.{name}") for name in ("kind", "name") if not target.get(name))
    for index, metric in enumerate(spec.get("metrics") or []):
        wanted = (metric.get("resource") or {}).get("target") or {}
        value = wanted.get("averageUtilization")
        if value is not None and value < 1:
            field = f"spec.metrics[{index}].resource.target.averageUtilization"
            causes.append(invalid_value(field, value, "must be greater than 0"))
    return causes


def _disruption_budget(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        why = "minAvailable and maxUnavailable cannot be both set"
        causes.append(invalid_value("spec", spec, why))
    for name in ("minAvailable", "maxUnavailable"):
        causes += int_or_percent(f"spec.{name}", spec.get(name))
    if spec.get("selector"):
        causes += selector_causes("spec.selector", spec["selector"])
    return causes


def _event(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    involved = (obj.get("involvedObject") or {}).get("namespace", "")
    namespace = obj["metadata"].get("namespace", "")
    if involved != namespace and not (involved == "" and namespace == "default"):
        return [invalid_value("involvedObject.namespace", involved, "does not match event.namespace")]
    return []


def _binding(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    ref = obj.get("roleRef") or {}
    causes: list[Cause] = []
    allowed = ["ClusterRole"] if obj["kind"] == "ClusterRoleBinding" else ["ClusterRole", "Role"]
    if ref.get("kind") not in allowed:
        causes.append(not_supported("roleRef.kind", ref.get("kind", ""), allowed))
    if not ref.get("name"):
        causes.append(required("roleRef.name"))
    for index, subject in enumerate(obj.get("subjects") or []):
        if not subject.get("name"):
            causes.append(required(f"subjects[{index}].name"))
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            value = subject.get("kind", "")
            causes.append(not_supported(f"subjects[{index}].kind", value, ["Group", "ServiceAccount", "User"]))
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            causes.append(required(f"subjects[{index}].namespace"))
    return causes


def _binding_update(obj: Obj, old: Obj) -> list[Cause]:
    if obj.get("roleRef") != old.get("roleRef"):
        return [invalid_value("roleRef", obj.get("roleRef"), "cannot change roleRef")]
    return []


def _role(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for index, rule in enumerate(obj.get("rules") or []):
        if not rule.get("verbs"):
            causes.append(required(f"rules[{index}].verbs", "verbs must contain at least one value"))
        elif not rule.get("nonResourceURLs"):
            if not rule.get("apiGroups"):
                causes.append(
                    required(f"rules[{index}].apiGroups", "resource rules must supply at least one api group")
                )
            if not rule.get("resources"):
                causes.append(required(f"rules[{index}].resources", "resource rules must supply at least one resource"))
    return causes


def _custom_definition(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    group, plural = spec.get("group", ""), (spec.get("names") or {}).get("plural", "")
    causes: list[Cause] = []
    if obj["metadata"].get("name") != f"{plural}.{group}":
        why = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid_value("metadata.name", obj["metadata"].get("name"), why))
    if not group:
        causes.append(required("spec.group"))
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        causes.append(not_supported("spec.scope", spec.get("scope", ""), ["Cluster", "Namespaced"]))
    if not (spec.get("names") or {}).get("kind"):
        causes.append(required("spec.names.kind"))
    versions = spec.get("versions") or []
    if sum(bool(one.get("storage")) for one in versions) != 1:
        why = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", versions, why))
    for index, one in enumerate(versions):
        if not (one.get("schema") or {}).get("openAPIV3Schema"):
            causes.append(required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"))
    return causes


_Create = Callable[["ObjectRegistry", Obj], list[Cause]]
_Update = Callable[[Obj, Obj], list[Cause]]

CREATE_RULES: dict[str, _Create] = {
    "pods": _pod,
    "deployments.apps": deployment,
    "replicasets.apps": replica_set,
    "statefulsets.apps": replica_set,
    "daemonsets.apps": daemon_set,
    "replicationcontrollers": replication_controller,
    "jobs.batch": job,
    "cronjobs.batch": cron_job,
    "configmaps": lambda _, obj: _data(obj),
    "secrets": lambda _, obj: _data(obj),
    "services": _service,
    "persistentvolumeclaims": _claim,
    "horizontalpodautoscalers.autoscaling": _autoscaler,
    "poddisruptionbudgets.policy": _disruption_budget,
    "events": _event,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "roles.rbac.authorization.k8s.io": _role,
    "clusterroles.rbac.authorization.k8s.io": _role,
    "customresourcedefinitions.apiextensions.k8s.io": _custom_definition,
}

UPDATE_RULES: dict[str, _Update] = {
    "pods": pod_update_causes,
    "deployments.apps": immutable_selector,
    "replicasets.apps": immutable_selector,
    "daemonsets.apps": immutable_selector,
    "statefulsets.apps": stateful_update,
    "jobs.batch": job_update,
    "configmaps": _data_update,
    "secrets": _data_update,
    "services": _service_update,
    "persistentvolumeclaims": _claim_update,
    "rolebindings.rbac.authorization.k8s.io": _binding_update,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding_update,
}
