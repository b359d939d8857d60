"""A workload measured for three hours of virtual time: what every source of metrics is fed from, and what it must say.

In namespace `shop`, `web` (containers `app` and `proxy`, three pods) is rolled out anew half-way and one of its
containers restarts near the end. `web-api` beside it, and `web` in namespace `bank`, are none of its business.
"""

import copy
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from opsapi.playground.node import NodeSpec
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from opsapi.telemetry.model import Span, WorkloadSelector
from support.playground_world import container, deployment, resources, service

RATE = 30.0
"""Requests a second of `web`, in whole."""
CPU = 100.0
"""Millicores of each `app`: a third of the requests at 10 ms."""
MEMORY = 200 * 2**20
ERRORS = 10.0
"""Percent."""
MINUTES = 185
WEB = WorkloadSelector("Deployment", "shop", "web", services=("web",))
PROXY = 40.0
"""Millicores of each `proxy`: its limit. It wants 50, so it is throttled."""
THROTTLED = 20.0
"""Percent."""
_PROFILE = {
    "app": {
        "traffic": {"swing": 0, "noise": 0},
        "cpu": {"base_millicores": 0, "per_request_ms": 10},
        "memory": {"base": "200Mi", "per_rps": "0"},
        "latency": {"p50_ms": 40, "p99_ms": 400},
        "error_rate": 0.1,
    },
    "proxy": {"cpu": {"base_millicores": 50}},
}


@dataclass(frozen=True, slots=True)
class Scrape:
    at: datetime
    exposition: str
    pods: list[Obj]
    nodes: list[Obj]


@dataclass(slots=True)
class Measured:
    """`first` and `last` are the names of `web`'s pods before and after the rollout; `restarted` the pod of the
    restart."""

    scrapes: list[Scrape] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)
    restarted: str = ""

    @property
    def now(self) -> datetime:
        return self.scrapes[-1].at

    def span(self, length: timedelta = timedelta(hours=3)) -> Span:
        return Span.ending(self.now, length, timedelta(minutes=1))


def measured(until: datetime | None = None) -> Measured:
    """Ends at `until`, by default the present, so that a server on the system's clock takes it for now."""
    until = until or datetime.now(UTC)
    world = World(until.replace(microsecond=0) - timedelta(minutes=MINUTES), 7)
    for index in range(3):
        world.add_node(NodeSpec(f"node-{index + 1}", "8", "32Gi"))
    for namespace in ("shop", "bank"):
        world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for name, namespace, rps in (("web", "shop", 30), ("web-api", "shop", 300), ("web", "bank", 3000)):
        world.apply(_in(namespace, service(name)))
        world.apply(_web(name, namespace, rps))
    result = Measured()
    for minute in range(MINUTES):
        if minute == MINUTES // 2:
            result.first = _names(world)
            world.apply(_web("web", "shop", 30, image="registry.example/shop/app:1.1"))
        if minute == MINUTES - 6:
            pod = next(
                one for one in world.registry.iterate("pods", "shop") if one["metadata"]["name"] in _names(world)
            )
            result.restarted = pod["metadata"]["name"]
            world.kubelets.kill(pod, "proxy", 1, "Error")
        world.advance(60)
        exposition = world.exposition.text()
        result.scrapes.append(Scrape(world.clock.now(), exposition, world.metrics.pods(), world.metrics.nodes()))
    result.last = _names(world)
    return result


def _names(world: World) -> list[str]:
    return sorted(
        pod["metadata"]["name"]
        for pod in world.registry.iterate("pods", "shop")
        if pod["metadata"]["labels"]["app"] == "web"
    )


def _in(namespace: str, manifest: Obj) -> Obj:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def _web(name: str, namespace: str, rps: int, image: str = "registry.example/shop/app:1.0") -> Obj:
    profile: dict[str, Any] = copy.deepcopy(_PROFILE)
    profile["app"]["traffic"]["rps"] = rps
    containers = (
        container(image=image, resources=resources("200m", "256Mi")),
        container("proxy", resources={"requests": {"cpu": "20m"}, "limits": {"cpu": "40m"}}),
    )
    return _in(namespace, deployment(name, *containers, profile=json.dumps({"containers": profile})))
