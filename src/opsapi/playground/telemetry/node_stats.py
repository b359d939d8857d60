"""A node's stats as the kubelet's /stats/summary gives them: the node and each of its pods' containers."""

from typing import Any

from opsapi.kit.clock import rfc3339
from opsapi.kit.quantity import whole
from opsapi.playground.clock import SimClock
from opsapi.playground.registry import Obj, Registry
from opsapi.playground.telemetry.metrics_api import ResourceMetrics


class NodeStats:
    def __init__(self, registry: Registry, clock: SimClock, metrics: ResourceMetrics) -> None:
        self._registry = registry
        self._clock = clock
        self._metrics = metrics

    def summary(self, node: Obj) -> dict[str, Any] | None:
        """stats/v1alpha1 Summary, CPU and memory only; None where the kubelet does not answer."""
        measured = self._metrics.node(node)
        if measured is None:
            return None
        capacity = whole(str(node["status"]["capacity"]["memory"]))
        used = int(measured["usage"]["memory"][:-2]) * 1024
        time = measured["timestamp"]
        name = node["metadata"]["name"]
        pods = [self._pod(pod) for pod in self._registry.pods_on_node(name)]
        return {
            "node": {
                "nodeName": name,
                "startTime": node["metadata"]["creationTimestamp"],
                "cpu": {"time": time, "usageNanoCores": int(measured["usage"]["cpu"][:-1])},
                "memory": {"time": time, "workingSetBytes": used, "availableBytes": max(0, capacity - used)},
            },
            "pods": [pod for pod in pods if pod is not None],
        }

    def _pod(self, pod: Obj) -> dict[str, Any] | None:
        measured = self._metrics.pod(pod)
        if measured is None:
            return None
        time, meta = measured["timestamp"], pod["metadata"]
        containers = [
            {
                "name": item["name"],
                "cpu": {"time": time, "usageNanoCores": int(item["usage"]["cpu"][:-1])},
                "memory": {"time": time, "workingSetBytes": int(item["usage"]["memory"][:-2]) * 1024},
            }
            for item in measured["containers"]
        ]
        return {
            "podRef": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "startTime": pod["status"].get("startTime", rfc3339(self._clock.now())),
            "containers": containers,
        }
