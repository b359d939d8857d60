"""PodDisruptionBudgets' status: how many evictions are allowed now. After pkg/controller/disruption/disruption.go."""

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster, ObjectController, set_condition
from opsapi.playground.controllers.rollout import scaled_value
from opsapi.playground.registry import Change, Obj
from opsapi.playground.selection import matches

_OWNERS = {
    "ReplicaSet": "replicasets.apps",
    "StatefulSet": "statefulsets.apps",
    "ReplicationController": "replicationcontrollers",
}


class DisruptionController(ObjectController):
    name = "disruption"
    resource = "poddisruptionbudgets.policy"
    kind = "PodDisruptionBudget"
    component = "controllermanager"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._selectors: dict[str, dict[str, Obj]] = {}
        self.registry.subscribe("pods", self._pod_changed)

    def _changed(self, change: Change) -> None:
        meta = change.new["metadata"]
        budgets = self._selectors.setdefault(meta["namespace"], {})
        if change.type == "DELETED":
            budgets.pop(meta["name"], None)
        else:
            budgets[meta["name"]] = change.new["spec"].get("selector") or {}
            self.enqueue(change.new)

    def _pod_changed(self, change: Change) -> None:
        namespace = change.new["metadata"]["namespace"]
        for name, selector in self._selectors.get(namespace, {}).items():
            if matches(selector, change.new["metadata"].get("labels")):
                self.queue.add(f"{namespace}/{name}")

    def sync(self, namespace: str, name: str) -> None:
        budget = self.registry.find(self.resource, namespace, name)
        if budget is None:
            return
        selector = budget["spec"].get("selector")
        selected = [
            pod
            for pod in self.registry.iterate("pods", namespace)
            if matches(selector, pod["metadata"].get("labels")) and not pods.is_finished(pod)
        ]
        if not selected:
            self.normal(budget, "NoPods", "No matching pods found")
        disrupted = self._disrupted(budget, selected)
        healthy = sum(
            1
            for pod in selected
            if pods.is_ready(pod) and not pods.is_terminating(pod) and pod["metadata"]["name"] not in disrupted
        )
        expected, desired = self._wanted(budget, selected)
        allowed = max(0, healthy - desired) if expected > 0 else 0
        enough = {"status": "True", "reason": "SufficientPods"} if allowed else {}
        generation = budget["metadata"].get("generation", 1)
        new = {
            "type": "DisruptionAllowed",
            "status": "False",
            "observedGeneration": generation,
            "reason": "InsufficientPods",
            "message": "",
            **enough,
        }
        old = budget.get("status", {})
        status: Obj = {"observedGeneration": generation}
        if disrupted:
            status["disruptedPods"] = disrupted
        status |= {
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "conditions": set_condition(old.get("conditions") or [], new, stamp=self.cluster.stamp()),
        }
        self.registry.patch_status(self.resource, namespace, name, status)

    @staticmethod
    def _disrupted(budget: Obj, selected: list[Obj]) -> Obj:
        """Evictions granted whose pods have not begun to terminate yet."""
        alive = {pod["metadata"]["name"] for pod in selected if not pods.is_terminating(pod)}
        known = budget.get("status", {}).get("disruptedPods") or {}
        return {name: since for name, since in known.items() if name in alive}

    def _wanted(self, budget: Obj, selected: list[Obj]) -> tuple[int, int]:
        """(expectedPods, desiredHealthy)."""
        spec = budget["spec"]
        if "maxUnavailable" in spec:
            expected = self._scale_of(selected)
            return expected, max(0, expected - scaled_value(spec["maxUnavailable"], expected, round_up=True))
        minimum = spec.get("minAvailable", 1)
        if isinstance(minimum, int):
            return len(selected), minimum
        expected = self._scale_of(selected)
        return expected, scaled_value(minimum, expected, round_up=True)

    def _scale_of(self, selected: list[Obj]) -> int:
        """What the pods' controllers want: the base of percentages."""
        total, seen = 0, set[str]()
        for pod in selected:
            owner = pods.controller_of(pod)
            if owner is None or owner["kind"] not in _OWNERS:
                total += 1
                continue
            found = self.registry.find(_OWNERS[owner["kind"]], pod["metadata"]["namespace"], owner["name"])
            parent = pods.controller_of(found) if found is not None else None
            if parent is not None and parent["kind"] == "Deployment":
                found = self.registry.find("deployments.apps", pod["metadata"]["namespace"], parent["name"])
            if found is None or found["metadata"]["uid"] in seen:
                continue
            seen.add(found["metadata"]["uid"])
            total += int(found["spec"].get("replicas", 1))
        return total
