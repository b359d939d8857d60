"""Required pod (anti-)affinity and hard topology spread: filters that look at the pods that already run.

Only what the incoming pod asks is checked; the anti-affinity of running pods against it is not modelled.
"""

from collections import Counter

from opsapi.playground.controllers.pods import is_active
from opsapi.playground.registry import Obj, Registry
from opsapi.playground.scheduler.predicates import NodeState, fits_node_affinity
from opsapi.playground.selection import matches

_ANTI = "node(s) didn't match pod anti-affinity rules"
_AFFINITY = "node(s) didn't match pod affinity rules"
_SPREAD = "node(s) didn't match pod topology spread constraints"


class Topology:
    """`prepare` for one pod, then `conflict` for each node."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._anti: list[tuple[str, Counter[str]]] = []
        self._affine: list[tuple[str, Counter[str], bool]] = []
        self._spread: list[tuple[str, Counter[str], int, int]] = []

    def prepare(self, pod: Obj, nodes: dict[str, NodeState]) -> None:
        affinity = pod["spec"].get("affinity") or {}
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        anti = (affinity.get("podAntiAffinity") or {}).get(required) or []
        affine = (affinity.get("podAffinity") or {}).get(required) or []
        spread = [
            item
            for item in pod["spec"].get("topologySpreadConstraints") or []
            if item.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"
        ]
        self._anti, self._affine, self._spread = [], [], []
        if not (anti or affine or spread):
            return
        self._anti = [(term["topologyKey"], self._domains(pod, term, nodes)) for term in anti]
        for term in affine:
            # The first pod of a group that wants to be together must start somewhere.
            itself = matches(term.get("labelSelector"), pod["metadata"].get("labels"))
            self._affine.append((term["topologyKey"], self._domains(pod, term, nodes), itself))
        for item in spread:
            key = item["topologyKey"]
            counts = self._domains(pod, item, nodes)
            eligible = {
                state.node["metadata"].get("labels", {}).get(key)
                for state in nodes.values()
                if fits_node_affinity(pod["spec"], state.node)
            } - {None}
            least = min((counts[str(domain)] for domain in eligible), default=0)
            self._spread.append((key, counts, least, int(item.get("maxSkew", 1))))

    def _domains(self, pod: Obj, term: Obj, nodes: dict[str, NodeState]) -> Counter[str]:
        """topologyKey's value -> pods that the term selects there."""
        counts: Counter[str] = Counter()
        namespaces = term.get("namespaces") or [pod["metadata"]["namespace"]]
        for namespace in namespaces:
            for other in self._registry.iterate("pods", namespace):
                node = other["spec"].get("nodeName")
                if not node or node not in nodes or not is_active(other):
                    continue
                if matches(term.get("labelSelector"), other["metadata"].get("labels")):
                    labels = nodes[node].node["metadata"].get("labels") or {}
                    counts[labels.get(term["topologyKey"], "")] += 1
        return counts

    def conflict(self, node: Obj) -> str | None:
        labels = node["metadata"].get("labels") or {}
        for key, counts, itself in self._affine:
            if key not in labels or not (counts[labels[key]] or (itself and not counts.total())):
                return _AFFINITY
        for key, counts in self._anti:
            if key in labels and counts[labels[key]]:
                return _ANTI
        for key, counts, least, skew in self._spread:
            if key not in labels or counts[labels[key]] + 1 - least > skew:
                return _SPREAD
        return None
