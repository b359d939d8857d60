"""Each kind's cells."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from opsapi.kit.clock import parse_rfc3339
from opsapi.kit.quantity import parse_quantity
from opsapi.playground.api.tables.ages import age, human_duration
from opsapi.playground.machinery.label_selectors import selector_text
from opsapi.playground.registry import Obj

Cells = Callable[[Obj, datetime], list[Any]]
NONE = "<none>"


def _name(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _spec(obj: Obj) -> Obj:
    return obj.get("spec") or {}


def _status(obj: Obj) -> Obj:
    return obj.get("status") or {}


def _images(spec: Obj) -> list[str]:
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or []
    return [",".join(one["name"] for one in containers), ",".join(one.get("image", "") for one in containers)]


def _selector(spec: Obj) -> str:
    return selector_text(spec.get("selector")) or NONE


def _plain_selector(selector: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((selector or {}).items())) or NONE


def named(obj: Obj, _: datetime) -> list[Any]:
    return [_name(obj), obj["metadata"].get("creationTimestamp")]


def name_and_age(obj: Obj, now: datetime) -> list[Any]:
    return [_name(obj), _age(obj, now)]


def namespace(obj: Obj, now: datetime) -> list[Any]:
    return [_name(obj), _status(obj).get("phase", ""), _age(obj, now)]


def node(obj: Obj, now: datetime) -> list[Any]:
    status, info = _status(obj), _status(obj).get("nodeInfo") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
    state = {"True": "Ready", "False": "NotReady", "Unknown": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    if _spec(obj).get("unschedulable"):
        state += ",SchedulingDisabled"
    addresses = {one["type"]: one["address"] for one in status.get("addresses") or []}
    return [
        _name(obj),
        state,
        _roles(obj["metadata"].get("labels") or {}),
        _age(obj, now),
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
    spec = _spec(obj)
    kind = spec.get("type", "")
    address = NONE if kind == "ExternalName" else spec.get("clusterIP") or NONE
    ports = ",".join(
        f"{one.get('port')}:{one['nodePort']}/{one.get('protocol')}"
        if one.get("nodePort")
        else f"{one.get('port')}/{one.get('protocol')}"
        for one in spec.get("ports") or []
    )
    external = _external(spec, obj)
    return [_name(obj), kind, address, external, ports or NONE, _age(obj, now), _plain_selector(spec.get("selector"))]


def _external(spec: Obj, obj: Obj) -> str:
    listed = list(spec.get("externalIPs") or [])
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    if spec.get("type") == "LoadBalancer":
        for one in (_status(obj).get("loadBalancer") or {}).get("ingress") or []:
            listed.append(one.get("ip") or one.get("hostname", ""))
        return ",".join(listed) or "<pending>"
    return ",".join(listed) or NONE


def deployment(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    return [
        _name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _age(obj, now),
        *_images(spec),
        _selector(spec),
    ]


def replica_set(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    return [
        _name(obj),
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        _age(obj, now),
        *_images(spec),
        _selector(spec),
    ]


def replication_controller(obj: Obj, now: datetime) -> list[Any]:
    return [
        *replica_set({**obj, "spec": {**_spec(obj), "selector": None}}, now)[:-1],
        _plain_selector(_spec(obj).get("selector")),
    ]


def stateful_set(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [_name(obj), ready, _age(obj, now), *_images(spec)]


def daemon_set(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    node_selector = ((spec.get("template") or {}).get("spec") or {}).get("nodeSelector")
    return [
        _name(obj),
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        _plain_selector(node_selector),
        _age(obj, now),
        *_images(spec),
        _selector(spec),
    ]


def job(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    wanted, done = spec.get("completions"), status.get("succeeded", 0)
    if wanted is not None:
        completions = f"{done}/{wanted}"
    else:
        parallelism = spec.get("parallelism", 0)
        completions = f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"
    return [
        _name(obj),
        _job_state(obj, status),
        completions,
        _job_duration(status, now),
        _age(obj, now),
        *_images(spec),
        _selector(spec),
    ]


def _job_state(obj: Obj, status: Obj) -> str:
    true = {one["type"] for one in status.get("conditions") or [] if one.get("status") == "True"}
    if "Complete" in true:
        return "Complete"
    if "Failed" in true:
        return "Failed"
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    if "Suspended" in true:
        return "Suspended"
    if "FailureTarget" in true:
        return "FailureTarget"
    return "SuccessCriteriaMet" if "SuccessCriteriaMet" in true else "Running"


def _job_duration(status: Obj, now: datetime) -> str:
    if not status.get("startTime"):
        return ""
    end = parse_rfc3339(status["completionTime"]) if status.get("completionTime") else now
    return human_duration((end - parse_rfc3339(status["startTime"])).total_seconds())


def cron_job(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    last = status.get("lastScheduleTime")
    job_spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    return [
        _name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or []),
        age(last, now) if last else NONE,
        _age(obj, now),
        *_images(job_spec),
        _selector(job_spec),
    ]


def endpoints(obj: Obj, now: datetime) -> list[Any]:
    found: list[str] = []
    for subset in obj.get("subsets") or []:
        ports = subset.get("ports") or []
        for one in subset.get("addresses") or []:
            found.extend([f"{one['ip']}:{port['port']}" for port in ports] if ports else [one["ip"]])
    return [_name(obj), _few(found), _age(obj, now)]


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
    return [_name(obj), obj.get("addressType", ""), shown_ports, shown, _age(obj, now)]


def config_map(obj: Obj, now: datetime) -> list[Any]:
    return [_name(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), _age(obj, now)]


def secret(obj: Obj, now: datetime) -> list[Any]:
    return [_name(obj), obj.get("type", ""), len(obj.get("data") or {}), _age(obj, now)]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: list[str] | None) -> str:
    return ",".join(_MODES.get(one, one) for one in modes or [])


def claim(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        _name(obj),
        phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        _age(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


def volume(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    ref = spec.get("claimRef") or {}
    return [
        _name(obj),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", ""),
        f"{ref.get('namespace')}/{ref.get('name')}" if ref else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        status.get("reason", ""),
        _age(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


def quota(obj: Obj, now: datetime) -> list[Any]:
    status = _status(obj)
    hard, used = status.get("hard") or {}, status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        shown = f"{name}: {used.get(name, '0')}/{hard[name]}"
        (limits if name.startswith("limits.") else requests).append(shown)
    return [_name(obj), ", ".join(requests), ", ".join(limits), _age(obj, now)]


def disruption_budget(obj: Obj, now: datetime) -> list[Any]:
    spec = _spec(obj)
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        _name(obj),
        "N/A" if low is None else str(low),
        "N/A" if high is None else str(high),
        _status(obj).get("disruptionsAllowed", 0),
        _age(obj, now),
    ]


def ingress(obj: Obj, now: datetime) -> list[Any]:
    spec = _spec(obj)
    hosts = [one.get("host") or "*" for one in spec.get("rules") or []]
    addresses = [
        one.get("ip") or one.get("hostname", "")
        for one in (_status(obj).get("loadBalancer") or {}).get("ingress") or []
    ]
    return [
        _name(obj),
        spec.get("ingressClassName") or NONE,
        _few(hosts) if hosts else "*",
        ",".join(addresses),
        "80, 443" if spec.get("tls") else "80",
        _age(obj, now),
    ]


def network_policy(obj: Obj, now: datetime) -> list[Any]:
    return [_name(obj), selector_text(_spec(obj).get("podSelector")) or NONE, _age(obj, now)]


def storage_class(obj: Obj, now: datetime) -> list[Any]:
    default = (obj["metadata"].get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        f"{_name(obj)} (default)" if default else _name(obj),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        bool(obj.get("allowVolumeExpansion")),
        _age(obj, now),
    ]


def binding(obj: Obj, now: datetime) -> list[Any]:
    ref = obj.get("roleRef") or {}
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for one in obj.get("subjects") or []:
        shown = f"{one.get('namespace', '')}/{one['name']}" if one.get("kind") == "ServiceAccount" else one["name"]
        subjects.setdefault(one.get("kind", ""), []).append(shown)
    listed = [", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [_name(obj), f"{ref.get('kind')}/{ref.get('name')}", _age(obj, now), *listed]


def lease(obj: Obj, now: datetime) -> list[Any]:
    return [_name(obj), _spec(obj).get("holderIdentity", ""), _age(obj, now)]


def priority_class(obj: Obj, now: datetime) -> list[Any]:
    policy = obj.get("preemptionPolicy", "PreemptLowerPriority")
    return [_name(obj), obj.get("value", 0), bool(obj.get("globalDefault")), _age(obj, now), policy]


def controller_revision(obj: Obj, now: datetime) -> list[Any]:
    owners = obj["metadata"].get("ownerReferences") or []
    owner = next((one for one in owners if one.get("controller")), None)
    shown = NONE
    if owner is not None:
        group = owner["apiVersion"].rpartition("/")[0]
        shown = (
            f"{owner['kind'].lower()}.{group}/{owner['name']}" if group else f"{owner['kind'].lower()}/{owner['name']}"
        )
    return [_name(obj), shown, obj.get("revision", 0), _age(obj, now)]


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
        _name(obj),
    ]


def autoscaler(obj: Obj, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    target = spec.get("scaleTargetRef") or {}
    low = spec.get("minReplicas")
    return [
        _name(obj),
        f"{target.get('kind')}/{target.get('name')}",
        _targets(spec.get("metrics") or [], status.get("currentMetrics") or []),
        "<unset>" if low is None else str(low),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        _age(obj, now),
    ]


def _targets(metrics: list[Obj], current: list[Obj]) -> str:
    shown = []
    for index, metric in enumerate(metrics):
        source = metric.get("type", "")
        key = source[:1].lower() + source[1:]
        held = metric.get(key) or {}
        now = ((current[index].get(key) or {}).get("current") or {}) if index < len(current) else {}
        shown.append(_one_target(source, held, now))
    if not shown:
        return NONE
    more = f" + {len(shown) - 2} more..." if len(shown) > 2 else ""
    return ", ".join(shown[:2]) + more


def _one_target(source: str, held: Obj, now: Obj) -> str:
    target = held.get("target") or {}
    unknown = "<unknown>"
    if source in ("Resource", "ContainerResource"):
        label = f"{held.get('name', '')}: "
        if target.get("averageValue") is not None:
            return f"{label}{now.get('averageValue', unknown)}/{target['averageValue']}"
        value = now.get("averageUtilization")
        return f"{label}{unknown if value is None else f'{value}%'}/{target.get('averageUtilization', '<auto>')}%"
    if target.get("averageValue") is not None:
        return f"{now.get('averageValue', unknown)}/{target['averageValue']} (avg)"
    return f"{now.get('value', unknown)}/{target.get('value', unknown)}"


def node_metrics(obj: Obj, _: datetime) -> list[Any]:
    usage = obj.get("usage") or {}
    return [_name(obj), *(usage.get(one, "0") for one in ("cpu", "memory")), obj.get("window", "")]


def pod_metrics(obj: Obj, _: datetime) -> list[Any]:
    totals = []
    for resource in ("cpu", "memory"):
        values = [(one.get("usage") or {}).get(resource, "0") for one in obj.get("containers") or []]
        totals.append(format(sum((parse_quantity(value) for value in values), parse_quantity("0")), "f"))
    return [_name(obj), *totals, obj.get("window", "")]
