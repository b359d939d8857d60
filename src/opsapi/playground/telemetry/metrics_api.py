"""metrics.k8s.io: what metrics-server would have scraped last."""

import math

from opsapi.kit.quantity import millicores, whole
from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.base import stamp_of
from opsapi.playground.registry import Obj, Registry
from opsapi.playground.telemetry.observation import Observation

WINDOW = 15.0
_SYSTEM_CPU = 110.0
_SYSTEM_MEMORY = 640 << 20
"""What a node's own daemons use: kubelet, runtime, sshd."""


class ResourceMetrics:
    """PodMetrics and NodeMetrics objects. Figures change every 15 s of virtual time, when metrics-server scrapes."""

    def __init__(self, registry: Registry, clock: SimClock, observation: Observation) -> None:
        self._registry = registry
        self._clock = clock
        self._observation = observation
        self._scraped = -1.0
        self._pods: dict[str, Obj | None] = {}

    def _scrape(self) -> float:
        """The reading of the latest scrape; forgets the figures of the one before."""
        reading = math.floor(self._clock.monotonic() / WINDOW) * WINDOW
        if reading != self._scraped:
            self._scraped = reading
            self._pods = {}
        return reading

    def pod(self, pod: Obj) -> Obj | None:
        """None where there are no figures: not running, too young, or on a node that is down."""
        reading = self._scrape()
        uid = pod["metadata"]["uid"]
        if uid not in self._pods:
            self._pods[uid] = self._measure(pod, reading)
        return self._pods[uid]

    def _measure(self, pod: Obj, reading: float) -> Obj | None:
        if pod.get("status", {}).get("phase") != "Running":
            return None
        instances = [one for one in self._observation.running(pod) if reading - one.started >= WINDOW]
        if not instances:
            return None
        containers = []
        for one in instances:
            figures = self._observation.measure(one, reading)
            usage = {"cpu": f"{round(figures.cpu * 1_000_000)}n", "memory": f"{round(figures.memory / 1024)}Ki"}
            containers.append({"name": one.spec["name"], "usage": usage})
        meta = pod["metadata"]
        about: Obj = {"name": meta["name"], "namespace": meta["namespace"]}
        about["creationTimestamp"] = stamp_of(self._clock.now())
        if meta.get("labels"):
            about["labels"] = meta["labels"]
        return {
            "kind": "PodMetrics",
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": about,
            "timestamp": stamp_of(self._clock.wall(reading)),
            "window": f"{WINDOW:.0f}s",
            "containers": containers,
        }

    def pods(self, namespace: str = "") -> list[Obj]:
        """PodMetrics of a namespace, or of all of them."""
        found = (self.pod(pod) for pod in self._registry.iterate("pods", namespace))
        return [item for item in found if item is not None]

    def nodes(self) -> list[Obj]:
        """NodeMetrics of the nodes whose kubelet answers."""
        found = (self.node(node) for node in self._registry.iterate("nodes"))
        return [item for item in found if item is not None]

    def node(self, node: Obj) -> Obj | None:
        name = node["metadata"]["name"]
        ready = [item for item in node.get("status", {}).get("conditions") or [] if item["type"] == "Ready"]
        if not ready or ready[0]["status"] != "True":
            return None
        cpu, memory = _SYSTEM_CPU, float(_SYSTEM_MEMORY)
        for pod in self._registry.pods_on_node(name):
            figures = self.pod(pod)
            for container in figures["containers"] if figures is not None else []:
                cpu += int(container["usage"]["cpu"][:-1]) / 1_000_000
                memory += int(container["usage"]["memory"][:-2]) * 1024
        capacity = node["status"].get("capacity") or {}
        cpu = min(cpu, float(millicores(str(capacity.get("cpu", "0")))))
        memory = min(memory, float(whole(str(capacity.get("memory", "0")))))
        return {
            "kind": "NodeMetrics",
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {
                "name": name,
                "creationTimestamp": stamp_of(self._clock.now()),
                "labels": node["metadata"].get("labels") or {},
            },
            "timestamp": stamp_of(self._clock.wall(self._scrape())),
            "window": f"{WINDOW:.0f}s",
            "usage": {"cpu": f"{round(cpu * 1_000_000)}n", "memory": f"{round(memory / 1024)}Ki"},
        }

    def usage(self, pod: Obj) -> dict[str, dict[str, float]] | None:
        """container -> {"cpu": millicores, "memory": bytes}, as an autoscaler reads it from the latest scrape."""
        figures = self.pod(pod)
        if figures is None:
            return None
        return {
            item["name"]: {
                "cpu": int(item["usage"]["cpu"][:-1]) / 1_000_000,
                "memory": int(item["usage"]["memory"][:-2]) * 1024.0,
            }
            for item in figures["containers"]
        }
