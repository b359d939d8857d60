"""What kube-state-metrics tells of the objects: its names and labels, of the kinds that are watched most."""

from collections.abc import Iterator, Mapping

from opsapi.kit.quantity import parse_quantity
from opsapi.playground.controllers.pods import parse_time
from opsapi.playground.registry import Obj, Registry
from opsapi.playground.telemetry.exposition import Family, counter, gauge

_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_CONDITIONS = ("true", "false", "unknown")
_UNITS = {"cpu": "core", "memory": "byte", "ephemeral-storage": "byte"}


def families(registry: Registry) -> Iterator[Family]:
    yield from _pods(registry)
    yield from _containers(registry)
    for kind, resource, fields in _WORKLOADS:
        yield from _workloads(registry, kind, resource, fields)
    yield from _owners(registry)
    yield from _autoscalers(registry)
    yield from _nodes(registry)


def _pods(registry: Registry) -> Iterator[Family]:
    info = gauge("kube_pod_info", "Information about a pod.")
    owner = gauge("kube_pod_owner", "Who controls the pod.")
    created = gauge("kube_pod_created", "When the pod was created, in Unix seconds.")
    phase = gauge("kube_pod_status_phase", "The pod's current phase.")
    ready = gauge("kube_pod_status_ready", "Whether the pod is ready to serve requests.")
    for pod in registry.iterate("pods"):
        labels, status = _pod_labels(pod), pod.get("status", {})
        control = _controller(pod)
        by = {"created_by_kind": control.get("kind", ""), "created_by_name": control.get("name", "")}
        where = {"node": pod["spec"].get("nodeName", ""), "pod_ip": status.get("podIP", "")}
        info.add({**labels, **where, **by}, 1)
        owner.add({**labels, **_owner_labels(control)}, 1)
        created.add(labels, parse_time(pod["metadata"]["creationTimestamp"]).timestamp())
        now = status.get("phase", "Pending")
        for one in _PHASES:
            phase.add({**labels, "phase": one}, float(one == now))
        _condition(ready, labels, status, "Ready")
    yield from (info, owner, created, phase, ready)


def _containers(registry: Registry) -> Iterator[Family]:
    prefix = "kube_pod_container"
    restarts = counter(f"{prefix}_status_restarts_total", "Restarts of a container.")
    ready = gauge(f"{prefix}_status_ready", "Whether the container passes its readiness check.")
    running = gauge(f"{prefix}_status_running", "Whether the container runs.")
    waiting = gauge(f"{prefix}_status_waiting_reason", "Why the container waits.")
    ended = gauge(f"{prefix}_status_last_terminated_reason", "Why the container's last run ended.")
    requests = gauge(f"{prefix}_resource_requests", "Requested resources.")
    limits = gauge(f"{prefix}_resource_limits", "Limits of resources.")
    for pod in registry.iterate("pods"):
        labels, node = _pod_labels(pod), pod["spec"].get("nodeName", "")
        for status in pod.get("status", {}).get("containerStatuses") or []:
            named = {**labels, "container": status["name"]}
            state, last = status.get("state") or {}, status.get("lastState") or {}
            restarts.add(named, status["restartCount"])
            ready.add(named, float(status.get("ready", False)))
            running.add(named, float("running" in state))
            if reason := (state.get("waiting") or {}).get("reason"):
                waiting.add({**named, "reason": reason}, 1)
            if reason := (last.get("terminated") or {}).get("reason"):
                ended.add({**named, "reason": reason}, 1)
        for container in pod["spec"].get("containers") or []:
            named = {**labels, "container": container["name"], "node": node}
            resources = container.get("resources") or {}
            _amounts(requests, named, resources.get("requests"))
            _amounts(limits, named, resources.get("limits"))
    yield from (restarts, ready, running, waiting, ended, requests, limits)


_Fields = Mapping[str, tuple[str, str, str]]
"""Suffix of the metric's name -> where in the object it stands (part, field), and what it is."""
_WORKLOADS: tuple[tuple[str, str, _Fields], ...] = (
    (
        "deployment",
        "deployments.apps",
        {
            "spec_replicas": ("spec", "replicas", "Number of desired pods."),
            "status_replicas": ("status", "replicas", "Number of pods."),
            "status_replicas_ready": ("status", "readyReplicas", "Number of ready pods."),
            "status_replicas_available": ("status", "availableReplicas", "Number of available pods."),
            "status_replicas_unavailable": ("status", "unavailableReplicas", "Number of unavailable pods."),
            "status_replicas_updated": ("status", "updatedReplicas", "Number of pods of the newest template."),
            "status_observed_generation": ("status", "observedGeneration", "The generation seen by the controller."),
            "metadata_generation": ("metadata", "generation", "The generation of the desired state."),
        },
    ),
    (
        "statefulset",
        "statefulsets.apps",
        {
            "replicas": ("spec", "replicas", "Number of desired pods."),
            "status_replicas": ("status", "replicas", "Number of pods."),
            "status_replicas_ready": ("status", "readyReplicas", "Number of ready pods."),
            "status_replicas_available": ("status", "availableReplicas", "Number of available pods."),
            "status_replicas_updated": ("status", "updatedReplicas", "Number of pods of the newest template."),
        },
    ),
    (
        "daemonset",
        "daemonsets.apps",
        {
            "status_desired_number_scheduled": ("status", "desiredNumberScheduled", "Nodes that should run its pod."),
            "status_current_number_scheduled": ("status", "currentNumberScheduled", "Nodes that run its pod."),
            "status_number_ready": ("status", "numberReady", "Nodes on which its pod is ready."),
            "status_number_available": ("status", "numberAvailable", "Nodes on which its pod is available."),
        },
    ),
)


def _workloads(registry: Registry, kind: str, resource: str, fields: _Fields) -> Iterator[Family]:
    made = {suffix: gauge(f"kube_{kind}_{suffix}", about) for suffix, (_, _, about) in fields.items()}
    for obj in registry.iterate(resource):
        labels = {"namespace": obj["metadata"]["namespace"], kind: obj["metadata"]["name"]}
        for suffix, (part, field, _) in fields.items():
            made[suffix].add(labels, obj.get(part, {}).get(field, 1 if part == "spec" else 0))
    yield from made.values()


def _owners(registry: Registry) -> Iterator[Family]:
    owner = gauge("kube_replicaset_owner", "Who controls the ReplicaSet.")
    for obj in registry.iterate("replicasets.apps"):
        labels = {"namespace": obj["metadata"]["namespace"], "replicaset": obj["metadata"]["name"]}
        owner.add({**labels, **_owner_labels(_controller(obj))}, 1)
    yield owner


def _autoscalers(registry: Registry) -> Iterator[Family]:
    prefix = "kube_horizontalpodautoscaler"
    least = gauge(f"{prefix}_spec_min_replicas", "Lower limit of pods.")
    most = gauge(f"{prefix}_spec_max_replicas", "Upper limit of pods.")
    current = gauge(f"{prefix}_status_current_replicas", "Number of pods.")
    desired = gauge(f"{prefix}_status_desired_replicas", "Number of pods that is wished for.")
    for obj in registry.iterate("horizontalpodautoscalers.autoscaling"):
        labels = {"namespace": obj["metadata"]["namespace"], "horizontalpodautoscaler": obj["metadata"]["name"]}
        least.add(labels, obj["spec"].get("minReplicas", 1))
        most.add(labels, obj["spec"]["maxReplicas"])
        current.add(labels, obj.get("status", {}).get("currentReplicas", 0))
        desired.add(labels, obj.get("status", {}).get("desiredReplicas", 0))
    yield from (least, most, current, desired)


def _nodes(registry: Registry) -> Iterator[Family]:
    condition = gauge("kube_node_status_condition", "The condition of a node.")
    capacity = gauge("kube_node_status_capacity", "Resources of a node.")
    allocatable = gauge("kube_node_status_allocatable", "Resources for pods.")
    cordoned = gauge("kube_node_spec_unschedulable", "Whether a node takes no new pods.")
    for node in registry.iterate("nodes"):
        labels, status = {"node": node["metadata"]["name"]}, node.get("status", {})
        for item in status.get("conditions") or []:
            _condition(condition, {**labels, "condition": item["type"]}, status, item["type"], "status")
        _amounts(capacity, labels, status.get("capacity"))
        _amounts(allocatable, labels, status.get("allocatable"))
        cordoned.add(labels, float(node["spec"].get("unschedulable", False)))
    yield from (condition, capacity, allocatable, cordoned)


def _condition(family: Family, labels: dict[str, str], status: Obj, kind: str, label: str = "condition") -> None:
    held = next((item for item in status.get("conditions") or [] if item["type"] == kind), None)
    if held is not None:
        for one in _CONDITIONS:
            family.add({**labels, label: one}, float(held["status"].lower() == one))


def _controller(obj: Obj) -> Obj:
    """The owner reference of the controller, or an empty dict."""
    return next((one for one in obj["metadata"].get("ownerReferences") or [] if one.get("controller")), {})


def _owner_labels(control: Obj) -> dict[str, str]:
    return {
        "owner_kind": control.get("kind", ""),
        "owner_name": control.get("name", ""),
        "owner_is_controller": "true" if control else "",
    }


def _pod_labels(pod: Obj) -> dict[str, str]:
    meta = pod["metadata"]
    return {"namespace": meta["namespace"], "pod": meta["name"], "uid": meta["uid"]}


def _amounts(family: Family, labels: dict[str, str], resources: Obj | None) -> None:
    for resource, quantity in (resources or {}).items():
        more = {"resource": resource.replace("-", "_"), "unit": _UNITS.get(resource, "integer")}
        family.add({**labels, **more}, float(parse_quantity(str(quantity))))
