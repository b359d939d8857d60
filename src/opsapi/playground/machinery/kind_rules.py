"""What each kind's spec has to satisfy."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from opsapi.playground.machinery import names
from opsapi.playground.machinery.label_selectors import matches, selector_causes
from opsapi.playground.machinery.pod_rules import pod_spec_causes, pod_update_causes, template_causes
from opsapi.playground.machinery.status import Cause, forbidden_field, invalid_value, not_supported, required, too_long
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

_NEGATIVE = "must be greater than or equal to 0"
_IMMUTABLE = "field is immutable"
_MAX_DATA = 1 << 20
_DATA_LIMIT = 1048576


def non_negative(field: str, value: int | None) -> list[Cause]:
    return [invalid_value(field, value, _NEGATIVE)] if value is not None and value < 0 else []


def _selected_template(spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    selector, template = spec.get("selector"), spec.get("template") or {}
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes += selector_causes("spec.selector", selector)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            why = "empty selector is invalid for deployment"
            causes.append(invalid_value("spec.selector", selector, why))
        elif not causes:
            labels = (template.get("metadata") or {}).get("labels") or {}
            if not matches(selector, labels):
                why = "`selector` does not match template `labels`"
                causes.append(invalid_value("spec.template.metadata.labels", labels, why))
    claims = [{"name": one["metadata"].get("name"), "emptyDir": {}} for one in spec.get("volumeClaimTemplates") or []]
    if claims:
        # A StatefulSet's pods get these volumes, so its containers may mount them.
        pod = template.get("spec") or {}
        template = {**template, "spec": {**pod, "volumes": [*(pod.get("volumes") or []), *claims]}}
    return causes + template_causes("spec.template", template, ("Always",))


def _deployment(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = non_negative("spec.replicas", spec.get("replicas"))
    causes += _selected_template(spec)
    causes += _rolling(spec.get("strategy") or {})
    causes += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    causes += non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    causes += non_negative("spec.progressDeadlineSeconds", spec.get("progressDeadlineSeconds"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        causes.append(invalid_value("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return causes


def _rolling(strategy: Obj) -> list[Cause]:
    kind = strategy.get("type")
    if kind not in ("RollingUpdate", "Recreate"):
        return [not_supported("spec.strategy.type", kind, ["Recreate", "RollingUpdate"])]
    rolling = strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            why = "may not be specified when strategy `type` is 'Recreate'"
            return [forbidden_field("spec.strategy.rollingUpdate", why)]
        return []
    causes = _int_or_percent("spec.strategy.rollingUpdate.maxUnavailable", (rolling or {}).get("maxUnavailable"))
    causes += _int_or_percent("spec.strategy.rollingUpdate.maxSurge", (rolling or {}).get("maxSurge"))
    held = rolling or {}
    if not causes and _is_zero(held.get("maxUnavailable")) and _is_zero(held.get("maxSurge")):
        why = "may not be 0 when `maxSurge` is 0"
        causes.append(invalid_value("spec.strategy.rollingUpdate.maxUnavailable", held["maxUnavailable"], why))
    return causes


def _is_zero(value: int | str | None) -> bool:
    return value in (0, "0", "0%")


def _int_or_percent(field: str, value: int | str | None) -> list[Cause]:
    if isinstance(value, int):
        return non_negative(field, value)
    if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
        why = (
            "a valid percent string must be a numeric string followed by an ending '%' "
            "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
        )
        return [invalid_value(field, value, why)]
    return []


def _replica_set(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    return non_negative("spec.replicas", spec.get("replicas")) + _selected_template(spec)


def _replication_controller(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    return non_negative("spec.replicas", (obj.get("spec") or {}).get("replicas"))


def _daemon_set(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    return _selected_template(obj["spec"])


def _immutable_selector(obj: Obj, old: Obj) -> list[Cause]:
    selector = obj["spec"].get("selector")
    if selector != old["spec"].get("selector"):
        return [invalid_value("spec.selector", selector, _IMMUTABLE)]
    return []


_STATEFUL_MUTABLE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
}


def _stateful_update(obj: Obj, old: Obj) -> list[Cause]:
    new, before = obj["spec"], old["spec"]
    changed = {key for key in (*new, *before) if new.get(key) != before.get(key)}
    if changed - _STATEFUL_MUTABLE:
        why = (
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
            "'minReadySeconds' are forbidden"
        )
        return [forbidden_field("spec", why)]
    return []


def _job(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    for name in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        causes += non_negative(f"spec.{name}", spec.get(name))
    return causes + template_causes("spec.template", spec.get("template") or {}, ("OnFailure", "Never"))


def _job_update(obj: Obj, old: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for name in ("completions", "selector", "template", "completionMode"):
        new, before = obj["spec"].get(name), old["spec"].get(name)
        if new != before and not (name == "template" and old["spec"].get("suspend")):
            causes.append(invalid_value(f"spec.{name}", new, _IMMUTABLE))
    return causes


_CRON_FIELD = r"(\*|\?|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?"
_CRON = re.compile(
    r"(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every .+|"
    rf"({_CRON_FIELD}(,{_CRON_FIELD})*\s+){{4}}{_CRON_FIELD}(,{_CRON_FIELD})*)"
)


def _cron_job(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    schedule = spec.get("schedule", "")
    if not schedule:
        causes.append(required("spec.schedule"))
    elif not _CRON.fullmatch(schedule.strip()):
        fields = schedule.split()
        why = f"expected exactly 5 fields, found {len(fields)}: {fields}" if len(fields) != 5 else "failed to parse"
        causes.append(invalid_value("spec.schedule", schedule, why.replace("'", "").replace(",", "")))
    if spec.get("concurrencyPolicy") not in ("Allow", "Forbid", "Replace"):
        value = spec.get("concurrencyPolicy")
        causes.append(not_supported("spec.concurrencyPolicy", value, ["Allow", "Forbid", "Replace"]))
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = job.get("template") or {}
    return causes + template_causes("spec.jobTemplate.spec.template", template, ("OnFailure", "Never"))


def _pod(registry: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    if registry.pod_specs.valid.get(spec):
        return []
    causes = pod_spec_causes("spec", spec)
    wanted = spec.get("priorityClassName")
    if wanted and registry.find("priorityclasses.scheduling.k8s.io", "", wanted) is None:
        causes.append(
            Cause("FieldValueNotFound", f"no PriorityClass with name {wanted} was found", "spec.priorityClassName")
        )
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
        causes.append(invalid_value("type", obj.get("type"), _IMMUTABLE))
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
        causes += _int_or_percent(f"spec.{name}", spec.get(name))
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
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "statefulsets.apps": _replica_set,
    "daemonsets.apps": _daemon_set,
    "replicationcontrollers": _replication_controller,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
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
    "deployments.apps": _immutable_selector,
    "replicasets.apps": _immutable_selector,
    "daemonsets.apps": _immutable_selector,
    "statefulsets.apps": _stateful_update,
    "jobs.batch": _job_update,
    "configmaps": _data_update,
    "secrets": _data_update,
    "services": _service_update,
    "persistentvolumeclaims": _claim_update,
    "rolebindings.rbac.authorization.k8s.io": _binding_update,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding_update,
}
