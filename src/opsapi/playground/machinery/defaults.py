"""Defaults of the built-in kinds, as a 1.36 API server fills them in. Works on dicts the caller has just made."""

from collections.abc import Callable
from typing import Any

from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import pod_defaults, services
from opsapi.playground.registry import Obj

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_Default = Callable[[Obj], None]


def apply(kind: Kind, obj: Obj) -> None:
    """What the API's own defaulting fills in, and the writer then owns; see allocation.py for the rest."""
    default = _DEFAULTS.get(kind.resource)
    if default is not None:
        default(obj)


def _spec(obj: Obj) -> dict[str, Any]:
    """The spec as a dict of its own, safe to fill in."""
    spec = dict(obj.get("spec") or {})
    obj["spec"] = spec
    return spec


def _namespace(obj: Obj) -> None:
    meta = obj["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta.get("name", "")}


def _deployment(obj: Obj) -> None:
    spec = _spec(obj)
    spec.setdefault("replicas", 1)
    _template(spec)
    strategy = dict(spec.get("strategy") or {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = dict(strategy.get("rollingUpdate") or {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
        strategy["rollingUpdate"] = rolling
    spec["strategy"] = strategy
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    obj["spec"] = in_order(
        spec,
        "replicas selector template strategy minReadySeconds revisionHistoryLimit paused progressDeadlineSeconds",
    )
    obj.setdefault("status", {})


def _replicas(obj: Obj) -> None:
    spec = _spec(obj)
    spec.setdefault("replicas", 1)
    _template(spec)
    obj["spec"] = in_order(spec, "replicas minReadySeconds selector template")
    obj.setdefault("status", {"replicas": 0})


def _replication_controller(obj: Obj) -> None:
    labels = (((obj.get("spec") or {}).get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        spec = _spec(obj)
        spec.setdefault("selector", labels)
        meta = obj["metadata"]
        meta.setdefault("labels", labels)
    _replicas(obj)


def _stateful_set(obj: Obj) -> None:
    spec = _spec(obj)
    spec.setdefault("replicas", 1)
    _template(spec)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    update = dict(spec.get("updateStrategy") or {})
    update.setdefault("type", "RollingUpdate")
    if update["type"] == "RollingUpdate":
        rolling = dict(update.get("rollingUpdate") or {})
        rolling.setdefault("partition", 0)
        update["rollingUpdate"] = rolling
    spec["updateStrategy"] = update
    spec.setdefault("revisionHistoryLimit", 10)
    retention = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    spec["persistentVolumeClaimRetentionPolicy"] = {
        **retention,
        **(spec.get("persistentVolumeClaimRetentionPolicy") or {}),
    }
    claims = spec.get("volumeClaimTemplates")
    if claims:
        spec["volumeClaimTemplates"] = [_claim_template(claim) for claim in claims]
    obj.setdefault("status", {"replicas": 0, "availableReplicas": 0})


def _claim_template(claim: Obj) -> Obj:
    made = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", **claim}
    made["spec"] = {"volumeMode": "Filesystem", **(claim.get("spec") or {})}
    made["status"] = {"phase": "Pending", **(claim.get("status") or {})}
    return made


def _daemon_set(obj: Obj) -> None:
    spec = _spec(obj)
    _template(spec)
    update = dict(spec.get("updateStrategy") or {})
    update.setdefault("type", "RollingUpdate")
    if update["type"] == "RollingUpdate":
        rolling = dict(update.get("rollingUpdate") or {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
        update["rollingUpdate"] = rolling
    spec["updateStrategy"] = update
    spec.setdefault("revisionHistoryLimit", 10)
    meta = obj["metadata"]
    meta["annotations"] = {TEMPLATE_GENERATION: "1", **(meta.get("annotations") or {})}
    empty = {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    }
    obj.setdefault("status", empty)


def _job_spec(spec: dict[str, Any]) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
        spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    spec.setdefault("manualSelector", False)


def _job(obj: Obj) -> None:
    spec = _spec(obj)
    _template(spec)
    _job_spec(spec)
    obj["spec"] = in_order(
        spec,
        "parallelism completions activeDeadlineSeconds podFailurePolicy successPolicy backoffLimit "
        "backoffLimitPerIndex maxFailedIndexes selector manualSelector template ttlSecondsAfterFinished "
        "completionMode suspend podReplacementPolicy managedBy",
    )
    obj.setdefault("status", {})


def _cron_job(obj: Obj) -> None:
    spec = _spec(obj)
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = dict(spec.get("jobTemplate") or {})
    job = dict(template.get("spec") or {})
    _template(job)
    template["spec"] = job
    spec["jobTemplate"] = template
    obj["spec"] = in_order(
        spec,
        "schedule timeZone startingDeadlineSeconds concurrencyPolicy suspend jobTemplate "
        "successfulJobsHistoryLimit failedJobsHistoryLimit",
    )
    obj.setdefault("status", {})


def _claim(obj: Obj) -> None:
    spec = _spec(obj)
    spec.setdefault("volumeMode", "Filesystem")
    # Each of the two is filled in from the other.
    source, ref = spec.get("dataSource"), spec.get("dataSourceRef")
    if source and not ref:
        spec["dataSourceRef"] = source
    elif ref and not source and not ref.get("namespace") and ref.get("kind") in ("VolumeSnapshot", _CLAIM_KIND):
        spec["dataSource"] = ref


_CLAIM_KIND = "PersistentVolumeClaim"


def _volume(obj: Obj) -> None:
    spec = _spec(obj)
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")


def _autoscaler(obj: Obj) -> None:
    spec = _spec(obj)
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if spec.get("behavior"):
        spec["behavior"] = _behavior(spec["behavior"])
    obj["spec"] = in_order(spec, "scaleTargetRef minReplicas maxReplicas metrics behavior")
    obj.setdefault("status", {"desiredReplicas": 0, "currentMetrics": None})


def _behavior(sent: Obj) -> Obj:
    percent = {"type": "Percent", "value": 100, "periodSeconds": 15}
    up = {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent],
    }
    down = {"selectPolicy": "Max", "policies": [percent]}
    order = "stabilizationWindowSeconds selectPolicy policies tolerance"
    return {
        "scaleUp": in_order({**up, **(sent.get("scaleUp") or {})}, order),
        "scaleDown": in_order({**down, **(sent.get("scaleDown") or {})}, order),
    }


def _network_policy(obj: Obj) -> None:
    spec = _spec(obj)
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for direction in ("ingress", "egress"):
        if spec.get(direction):
            spec[direction] = [
                {**rule, "ports": [{"protocol": "TCP", **port} for port in rule["ports"]]}
                if rule.get("ports")
                else rule
                for rule in spec[direction]
            ]


def _ingress(obj: Obj) -> None:
    _spec(obj)
    obj.setdefault("status", {"loadBalancer": {}})


def _secret(obj: Obj) -> None:
    plain = obj.pop("stringData", None)
    if plain:
        import base64

        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}
    obj["type"] = obj.get("type") or "Opaque"


def _storage_class(obj: Obj) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def _binding(obj: Obj) -> None:
    group = "rbac.authorization.k8s.io"
    obj["roleRef"] = {**(obj.get("roleRef") or {})}
    if not obj["roleRef"].get("apiGroup"):
        obj["roleRef"]["apiGroup"] = group
    subjects = obj.get("subjects") or []
    if subjects:
        obj["subjects"] = [
            {**one, "apiGroup": group} if one.get("kind") in ("User", "Group") and not one.get("apiGroup") else one
            for one in subjects
        ]


def _disruption_budget(obj: Obj) -> None:
    empty = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
    obj.setdefault("status", empty)


def _event(obj: Obj) -> None:
    if obj.get("type") == "":
        obj.pop("type")


def _endpoints(obj: Obj) -> None:
    if obj.get("subsets"):
        obj["subsets"] = [
            {**subset, "ports": [{"protocol": "TCP", **port} for port in subset["ports"]]}
            if subset.get("ports")
            else subset
            for subset in obj["subsets"]
        ]


def _endpoint_slice(obj: Obj) -> None:
    if obj.get("ports"):
        obj["ports"] = [{"name": "", "protocol": "TCP", **port} for port in obj["ports"]]


def _limit_range(obj: Obj) -> None:
    spec = _spec(obj)
    spec["limits"] = [pod_defaults.limit_item(item) for item in spec.get("limits") or []]


def _custom_definition(obj: Obj) -> None:
    spec = _spec(obj)
    names = dict(spec.get("names") or {})
    names.setdefault("singular", str(names.get("kind", "")).lower())
    names.setdefault("listKind", f"{names.get('kind', '')}List")
    spec["names"] = in_order(names, "plural singular shortNames kind listKind categories")
    spec.setdefault("conversion", {"strategy": "None"})
    obj["spec"] = in_order(spec, "group names scope versions conversion preserveUnknownFields")


def _priority_class(obj: Obj) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _node(obj: Obj) -> None:
    _spec(obj)
    status = dict(obj.get("status") or {})
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = status["capacity"]
    obj["status"] = status


def _resource_quota(obj: Obj) -> None:
    obj.setdefault("status", {})


def _api_service(obj: Obj) -> None:
    spec = _spec(obj)
    if isinstance(spec.get("service"), dict):
        spec["service"] = {"port": 443, **spec["service"]}
    obj.setdefault("status", {})


def _template(spec: dict[str, Any]) -> None:
    template = spec.get("template")
    if template and "spec" in template:
        spec["template"] = pod_defaults.template(template)


def in_order(value: dict[str, Any], names: str) -> dict[str, Any]:
    """The same mapping with `names` first, in that order."""
    listed = names.split()
    return {name: value[name] for name in listed if name in value} | value


_DEFAULTS: dict[str, _Default] = {
    "namespaces": _namespace,
    "pods": pod_defaults.pod,
    "services": services.default,
    "deployments.apps": _deployment,
    "replicasets.apps": _replicas,
    "replicationcontrollers": _replication_controller,
    "statefulsets.apps": _stateful_set,
    "daemonsets.apps": _daemon_set,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume,
    "horizontalpodautoscalers.autoscaling": _autoscaler,
    "networkpolicies.networking.k8s.io": _network_policy,
    "ingresses.networking.k8s.io": _ingress,
    "secrets": _secret,
    "storageclasses.storage.k8s.io": _storage_class,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "poddisruptionbudgets.policy": _disruption_budget,
    "events": _event,
    "endpoints": _endpoints,
    "endpointslices.discovery.k8s.io": _endpoint_slice,
    "limitranges": _limit_range,
    "customresourcedefinitions.apiextensions.k8s.io": _custom_definition,
    "priorityclasses.scheduling.k8s.io": _priority_class,
    "nodes": _node,
    "resourcequotas": _resource_quota,
    "apiservices.apiregistration.k8s.io": _api_service,
}
