"""The cells of all kinds but workloads and pods."""

from datetime import datetime
from typing import Any

from opsapi.kit.quantity import parse_quantity
from opsapi.playground.api.tables.ages import age
from opsapi.playground.api.tables.parts import (
    NONE,
    age_of,
    name_of,
    plain_selector,
    spec_of,
    status_of,
)
from opsapi.playground.machinery.label_selectors import selector_text
from opsapi.playground.registry import Obj


def named(obj: Obj, _: datetime) -> list[Any]:
    return [name_of(obj), obj["metadata"].get("creationTimestamp")]


def name_and_age(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), age_of(obj, now)]


def namespace(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), status_of(obj).get("phase", ""), age_of(obj, now)]


def node(obj: Obj, now: datetime) -> list[Any]:
    status, info = status_of(obj), status_of(obj).get("nodeInfo") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
    state = {"True": "Ready", "False": "NotReady", "Unknown": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    if spec_of(obj).get("unschedulable"):
        state += ",SchedulingDisabled"
    addresses = {one["type"]: one["address"] for one in status.get("addresses") or []}
    return [
        name_of(obj),
        state,
        _roles(obj["metadata"].get("labels") or {}),
        age_of(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or "<unknown>",
        _kernel(info),
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _kernel(info: Obj) -> str:
    if not info.get("kernelVersion"):
        return "<unknown>"
    return (
        f"{info['kernelVersion']} ({info['architecture']})" if info.get("architecture") else str(info["kernelVersion"])
    )


def _roles(labels: dict[str, str]) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = {key.removeprefix(prefix) for key in labels if key.startswith(prefix) and key != prefix}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return ",".join(sorted(roles)) or NONE


def service(obj: Obj, now: datetime) -> list[Any]:
    spec = spec_of(obj)
    kind = spec.get("type", "")
    address = NONE if kind == "ExternalName" else spec.get("clusterIP") or NONE
    ports = ",".join(
        f"{one.get('port')}:{one['nodePort']}/{one.get('protocol')}"
        if one.get("nodePort")
        else f"{one.get('port')}/{one.get('protocol')}"
        for one in spec.get("ports") or []
    )
    external = _external(spec, obj)
    return [
        name_of(obj),
        kind,
        address,
        external,
        ports or NONE,
        age_of(obj, now),
        plain_selector(spec.get("selector")),
    ]


def _external(spec: Obj, obj: Obj) -> str:
    listed = list(spec.get("externalIPs") or [])
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    if spec.get("type") == "LoadBalancer":
        for one in (status_of(obj).get("loadBalancer") or {}).get("ingress") or []:
            listed.append(one.get("ip") or one.get("hostname", ""))
        return ",".join(listed) or "<pending>"
    return ",".join(listed) or NONE


def endpoints(obj: Obj, now: datetime) -> list[Any]:
    found: list[str] = []
    for subset in obj.get("subsets") or []:
        ports = subset.get("ports") or []
        for one in subset.get("addresses") or []:
            found.extend([f"{one['ip']}:{port['port']}" for port in ports] if ports else [one["ip"]])
    return [name_of(obj), _few(found), age_of(obj, now)]


def _few(items: list[str], limit: int = 3) -> str:
    if not items:
        return NONE
    more = f" + {len(items) - limit} more..." if len(items) > limit else ""
    return ",".join(items[:limit]) + more


def endpoint_slice(obj: Obj, now: datetime) -> list[Any]:
    ports = [str(one["port"]) if one.get("port") is not None else "*" for one in obj.get("ports") or []]
    addresses = [address for one in obj.get("endpoints") or [] for address in one.get("addresses") or []]
    shown_ports = _few(ports) if ports else "<unset>"
    shown = _few(addresses) if addresses else "<unset>"
    return [name_of(obj), obj.get("addressType", ""), shown_ports, shown, age_of(obj, now)]


def config_map(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), age_of(obj, now)]


def secret(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), obj.get("type", ""), len(obj.get("data") or {}), age_of(obj, now)]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: list[str] | None) -> str:
    return ",".join(_MODES.get(one, one) for one in modes or [])


def claim(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        name_of(obj),
        phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        age_of(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


def volume(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    ref = spec.get("claimRef") or {}
    return [
        name_of(obj),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", ""),
        f"{ref.get('namespace')}/{ref.get('name')}" if ref else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        status.get("reason", ""),
        age_of(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


def quota(obj: Obj, now: datetime) -> list[Any]:
    status = status_of(obj)
    hard, used = status.get("hard") or {}, status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        shown = f"{name}: {used.get(name, '0')}/{hard[name]}"
        (limits if name.startswith("limits.") else requests).append(shown)
    return [name_of(obj), ", ".join(requests), ", ".join(limits), age_of(obj, now)]


def disruption_budget(obj: Obj, now: datetime) -> list[Any]:
    spec = spec_of(obj)
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        name_of(obj),
        "N/A" if low is None else str(low),
        "N/A" if high is None else str(high),
        status_of(obj).get("disruptionsAllowed", 0),
        age_of(obj, now),
    ]


def ingress(obj: Obj, now: datetime) -> list[Any]:
    spec = spec_of(obj)
    hosts = [one.get("host") or "*" for one in spec.get("rules") or []]
    addresses = [
        one.get("ip") or one.get("hostname", "")
        for one in (status_of(obj).get("loadBalancer") or {}).get("ingress") or []
    ]
    return [
        name_of(obj),
        spec.get("ingressClassName") or NONE,
        _few(hosts) if hosts else "*",
        ",".join(addresses),
        "80, 443" if spec.get("tls") else "80",
        age_of(obj, now),
    ]


def network_policy(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), selector_text(spec_of(obj).get("podSelector")) or NONE, age_of(obj, now)]


def storage_class(obj: Obj, now: datetime) -> list[Any]:
    default = (obj["metadata"].get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        f"{name_of(obj)} (default)" if default else name_of(obj),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        bool(obj.get("allowVolumeExpansion")),
        age_of(obj, now),
    ]


def binding(obj: Obj, now: datetime) -> list[Any]:
    ref = obj.get("roleRef") or {}
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for one in obj.get("subjects") or []:
        shown = f"{one.get('namespace', '')}/{one['name']}" if one.get("kind") == "ServiceAccount" else one["name"]
        subjects.setdefault(one.get("kind", ""), []).append(shown)
    listed = [", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [name_of(obj), f"{ref.get('kind')}/{ref.get('name')}", age_of(obj, now), *listed]


def lease(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), spec_of(obj).get("holderIdentity", ""), age_of(obj, now)]


def priority_class(obj: Obj, now: datetime) -> list[Any]:
    policy = obj.get("preemptionPolicy", "PreemptLowerPriority")
    return [name_of(obj), obj.get("value", 0), bool(obj.get("globalDefault")), age_of(obj, now), policy]


def controller_revision(obj: Obj, now: datetime) -> list[Any]:
    owners = obj["metadata"].get("ownerReferences") or []
    owner = next((one for one in owners if one.get("controller")), None)
    shown = NONE
    if owner is not None:
        group = owner["apiVersion"].rpartition("/")[0]
        shown = (
            f"{owner['kind'].lower()}.{group}/{owner['name']}" if group else f"{owner['kind'].lower()}/{owner['name']}"
        )
    return [name_of(obj), shown, obj.get("revision", 0), age_of(obj, now)]


def event(obj: Obj, now: datetime) -> list[Any]:
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or first
    count = series.get("count") or obj.get("count") or 1
    seen = age(last, now) if last else "<unknown>"
    involved = obj.get("involvedObject") or {}
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent", "")
    instance = source.get("host") or obj.get("reportingInstance", "")
    kind = str(involved.get("kind", "")).lower()
    return [
        seen,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{involved['name']}" if involved.get("name") else kind,
        involved.get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        str(obj.get("message", "")).strip(),
        age(first, now) if first else seen,
        count,
        name_of(obj),
    ]


def node_metrics(obj: Obj, _: datetime) -> list[Any]:
    usage = obj.get("usage") or {}
    return [name_of(obj), *(usage.get(one, "0") for one in ("cpu", "memory")), obj.get("window", "")]


def pod_metrics(obj: Obj, _: datetime) -> list[Any]:
    totals = []
    for resource in ("cpu", "memory"):
        values = [(one.get("usage") or {}).get(resource, "0") for one in obj.get("containers") or []]
        totals.append(format(sum((parse_quantity(value) for value in values), parse_quantity("0")), "f"))
    return [name_of(obj), *totals, obj.get("window", "")]
