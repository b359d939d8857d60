"""Prometheus' text format (0.0.4): what cAdvisor, kube-state-metrics and the services themselves expose."""

from collections.abc import Iterator

from opsapi.kit.quantity import parse_quantity
from opsapi.playground.registry import Obj, Registry
from opsapi.playground.telemetry.counters import BUCKETS, Counter, Counters
from opsapi.playground.telemetry.observation import Instance, Observation

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")


def escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def line(name: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:.10g}" if inside else f"{name} {value:.10g}"


class Exposition:
    def __init__(self, registry: Registry, observation: Observation, counters: Counters) -> None:
        self._registry = registry
        self._observation = observation
        self._counters = counters

    def text(self) -> str:
        parts: list[str] = []
        for family, kind, about, lines in self._families():
            parts.append(f"# HELP {family} {about}")
            parts.append(f"# TYPE {family} {kind}")
            parts += lines
        return "\n".join(parts) + "\n"

    def _families(self) -> Iterator[tuple[str, str, str, list[str]]]:
        instances = [one for pod in self._registry.iterate("pods") for one in self._observation.running(pod)]
        read = [(one, self._counters.read(one)) for one in instances]
        alive = {(o.pod["metadata"]["uid"], o.spec["name"], o.status.get("containerID", "")) for o in instances}
        self._counters.forget_all_but(alive)
        yield from self._containers(read)
        yield from self._requests(read)
        yield from self._pods()
        yield from self._workloads()
        yield from self._nodes()

    def _containers(self, read: list[tuple[Instance, Counter]]) -> Iterator[tuple[str, str, str, list[str]]]:
        cpu, memory, throttled = [], [], []
        for one, counter in read:
            labels = _container_labels(one)
            cpu.append(line("container_cpu_usage_seconds_total", labels, counter.cpu_seconds))
            throttled.append(line("container_cpu_cfs_throttled_seconds_total", labels, counter.throttled_seconds))
            used = self._observation.measure(one).memory
            memory.append(line("container_memory_working_set_bytes", labels, round(used)))
        yield "container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", cpu
        yield "container_cpu_cfs_throttled_seconds_total", "counter", "Total time throttled.", throttled
        yield "container_memory_working_set_bytes", "gauge", "Current working set in bytes.", memory

    def _requests(self, read: list[tuple[Instance, Counter]]) -> Iterator[tuple[str, str, str, list[str]]]:
        totals, durations = [], []
        for one, counter in read:
            if one.model.profile.traffic.rps <= 0:
                continue
            labels = _container_labels(one)
            good = counter.requests - counter.failures
            totals.append(line("http_requests_total", {**labels, "code": "200"}, good))
            totals.append(line("http_requests_total", {**labels, "code": "500"}, counter.failures))
            name = "http_request_duration_seconds"
            for bound, count in zip(BUCKETS, counter.buckets, strict=True):
                durations.append(line(f"{name}_bucket", {**labels, "le": f"{bound:g}"}, count))
            durations.append(line(f"{name}_bucket", {**labels, "le": "+Inf"}, counter.requests))
            durations.append(line(f"{name}_sum", labels, counter.duration_seconds))
            durations.append(line(f"{name}_count", labels, counter.requests))
        yield "http_requests_total", "counter", "Requests served, by status code.", totals
        yield "http_request_duration_seconds", "histogram", "Time to serve a request.", durations

    def _pods(self) -> Iterator[tuple[str, str, str, list[str]]]:
        info, phases, restarts, requests, limits = [], [], [], [], []
        for pod in self._registry.iterate("pods"):
            labels = _pod_labels(pod)
            node = pod["spec"].get("nodeName", "")
            info.append(line("kube_pod_info", {**labels, "node": node, "uid": pod["metadata"]["uid"]}, 1))
            now = pod.get("status", {}).get("phase", "Pending")
            phases += [line("kube_pod_status_phase", {**labels, "phase": one}, float(one == now)) for one in _PHASES]
            for status in pod.get("status", {}).get("containerStatuses") or []:
                named = {**labels, "container": status["name"]}
                restarts.append(line("kube_pod_container_status_restarts_total", named, status["restartCount"]))
            for container in pod["spec"].get("containers") or []:
                named = {**labels, "container": container["name"], "node": node}
                resources = container.get("resources") or {}
                requests += _amounts("kube_pod_container_resource_requests", named, resources.get("requests"))
                limits += _amounts("kube_pod_container_resource_limits", named, resources.get("limits"))
        yield "kube_pod_info", "gauge", "Information about a pod.", info
        yield "kube_pod_status_phase", "gauge", "The pod's current phase.", phases
        yield "kube_pod_container_status_restarts_total", "counter", "Restarts of a container.", restarts
        yield "kube_pod_container_resource_requests", "gauge", "Requested resources.", requests
        yield "kube_pod_container_resource_limits", "gauge", "Limits of resources.", limits

    def _workloads(self) -> Iterator[tuple[str, str, str, list[str]]]:
        for kind, resource in (("deployment", "deployments.apps"), ("statefulset", "statefulsets.apps")):
            wanted, available = [], []
            prefix = f"kube_{kind}"
            spec_name = f"{prefix}_spec_replicas" if kind == "deployment" else f"{prefix}_replicas"
            for obj in self._registry.iterate(resource):
                labels = {"namespace": obj["metadata"]["namespace"], kind: obj["metadata"]["name"]}
                wanted.append(line(spec_name, labels, obj["spec"].get("replicas", 1)))
                up = obj.get("status", {}).get("availableReplicas", 0)
                available.append(line(f"{prefix}_status_replicas_available", labels, up))
            yield spec_name, "gauge", "Number of desired pods.", wanted
            yield f"{prefix}_status_replicas_available", "gauge", "Number of available pods.", available

    def _nodes(self) -> Iterator[tuple[str, str, str, list[str]]]:
        conditions, allocatable = [], []
        for node in self._registry.iterate("nodes"):
            name = node["metadata"]["name"]
            for item in node.get("status", {}).get("conditions") or []:
                for status in ("true", "false", "unknown"):
                    labels = {"node": name, "condition": item["type"], "status": status}
                    value = float(item["status"].lower() == status)
                    conditions.append(line("kube_node_status_condition", labels, value))
            amounts = node.get("status", {}).get("allocatable")
            allocatable += _amounts("kube_node_status_allocatable", {"node": name}, amounts)
        yield "kube_node_status_condition", "gauge", "The condition of a node.", conditions
        yield "kube_node_status_allocatable", "gauge", "Resources for pods.", allocatable


def _pod_labels(pod: Obj) -> dict[str, str]:
    return {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"]}


def _container_labels(one: Instance) -> dict[str, str]:
    return {**_pod_labels(one.pod), "container": one.spec["name"]}


def _amounts(name: str, labels: dict[str, str], resources: Obj | None) -> list[str]:
    units = {"cpu": "core", "memory": "byte", "ephemeral-storage": "byte"}
    return [
        line(
            name,
            {**labels, "resource": resource.replace("-", "_"), "unit": units.get(resource, "integer")},
            float(parse_quantity(str(quantity))),
        )
        for resource, quantity in (resources or {}).items()
    ]
