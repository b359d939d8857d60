"""Eviction under node pressure: while it lasts, the pod that exceeds its request the most goes, one a minute.

After pkg/kubelet/eviction: pods are ranked by how far their usage is above what they asked for.
"""

from opsapi.playground.clock import SimClock, Timer
from opsapi.playground.controllers.pods import controller_of, is_active
from opsapi.playground.kubelet.kubelet import Kubelets
from opsapi.playground.registry import Obj, Registry
from opsapi.playground.scheduler.predicates import amount
from opsapi.playground.telemetry.observation import Observation

_FIRST = 10.0
_NEXT = 60.0
_REASON = "Evicted"


class PressureEviction:
    """`begin` and `end` belong to a node's MemoryPressure; other pressures evict nobody here."""

    def __init__(self, registry: Registry, clock: SimClock, kubelets: Kubelets, observation: Observation) -> None:
        self._registry = registry
        self._clock = clock
        self._kubelets = kubelets
        self._observation = observation
        self._pending: dict[str, Timer] = {}

    def begin(self, node: str) -> None:
        if node not in self._pending:
            self._pending[node] = self._clock.call_later(_FIRST, lambda: self._evict_one(node))

    def end(self, node: str) -> None:
        timer = self._pending.pop(node, None)
        if timer is not None:
            timer.cancel()

    def _evict_one(self, node: str) -> None:
        self._pending[node] = self._clock.call_later(_NEXT, lambda: self._evict_one(node))
        if not self._kubelets.is_up(node):
            return
        ranked = sorted(
            (excess, pod["metadata"]["uid"], pod, words)
            for pod in self._registry.pods_on_node(node)
            if is_active(pod) and not _is_daemon(pod)
            for excess, words in [self._excess(pod)]
        )
        if ranked and ranked[-1][0] > 0:
            _, _, pod, words = ranked[-1]
            text = f"The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. {words}"
            self._kubelets.evict(pod, _REASON, text)

    def _excess(self, pod: Obj) -> tuple[float, str]:
        """(bytes above the requests, the words about the container that is furthest above)."""
        total, worst, words = 0.0, 0.0, ""
        for one in self._observation.running(pod):
            used = self._observation.measure(one).memory
            asked = ((one.spec.get("resources") or {}).get("requests") or {}).get("memory", "0")
            above = used - amount("memory", asked)
            total += above
            if above > worst:
                worst = above
                words = (
                    f"Container {one.spec['name']} was using {round(used / 1024)}Ki, request is {asked}, "
                    "has larger consumption of memory. "
                )
        return total, words


def _is_daemon(pod: Obj) -> bool:
    owner = controller_of(pod)
    return owner is not None and owner["kind"] == "DaemonSet"
