"""Node lifecycle: nodes whose kubelet is silent become NotReady, are tainted, and lose their pods.

After pkg/controller/nodelifecycle and pkg/controller/tainteviction.
"""

from collections.abc import Callable

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster, ObjectController, set_condition
from opsapi.playground.registry import ApiError, Change, ChangeType, Obj
from opsapi.playground.selection import tolerates

GRACE = 40.0
"""Seconds without a sign of life after which a node counts as gone (--node-monitor-grace-period)."""
MONITOR = 5.0
_UNREACHABLE = "node.kubernetes.io/unreachable"
_NOT_READY = "node.kubernetes.io/not-ready"
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_OWNED = frozenset({_UNREACHABLE, _NOT_READY, _UNSCHEDULABLE, *_PRESSURES.values()})

Heartbeat = Callable[[str], float | None]
"""Node name -> the clock's reading at its kubelet's last sign of life; None where it never gave one."""


class NodeController(ObjectController):
    name = "node-lifecycle"
    resource = "nodes"
    kind = "Node"
    component = "node-controller"

    def __init__(self, cluster: Cluster, heartbeat: Heartbeat) -> None:
        super().__init__(cluster)
        self._heartbeat = heartbeat
        self._registered: set[str] = set()

    def _changed(self, change: Change) -> None:
        old, name = change.old, change.new["metadata"]["name"]
        if change.type is ChangeType.DELETED:
            self._registered.discard(name)
            for pod in self.registry.pods_on_node(name):
                self._delete(pod)
            return
        same = old is not None and old["spec"] == change.new["spec"] and _vital(old) == _vital(change.new)
        if not same:
            self.enqueue(change.new)

    def sync(self, _namespace: str, name: str) -> None:
        node = self.registry.find("nodes", "", name)
        if node is None:
            return
        if name not in self._registered:
            self._registered.add(name)
            text = f"Node {name} event: Registered Node {name} in Controller"
            self.normal(node, "RegisteredNode", text)
        node = self._judge(node)
        self._taint(node)
        self.queue.add_after(f"/{name}", self._next_look(name))

    def _next_look(self, name: str) -> float:
        """While a node is alive, nothing can happen to it before its grace is over."""
        seen = self._heartbeat(name)
        if seen is None:
            return MONITOR
        return max(MONITOR, seen + GRACE - self.clock.monotonic())

    def _judge(self, node: Obj) -> Obj:
        """Sets all conditions to Unknown where the kubelet has been silent for too long."""
        name = node["metadata"]["name"]
        seen = self._heartbeat(name)
        if seen is not None and self.clock.monotonic() - seen < GRACE:
            return node
        ready = pods.condition(node, "Ready")
        if ready is None or ready["status"] == "Unknown":
            return node
        status = node["status"]
        conditions = list(status.get("conditions") or [])
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready"):
            new = {
                "type": kind,
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
            conditions = set_condition(conditions, new, stamp=self.cluster.stamp())
        node = self.registry.patch_status("nodes", "", name, {**status, "conditions": conditions})
        self.normal(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in self.registry.pods_on_node(name):
            self._mark_unready(pod)
        return node

    def _mark_unready(self, pod: Obj) -> None:
        if not pods.is_ready(pod):
            return
        meta, status = pod["metadata"], pod["status"]
        conditions = [
            {**item, "status": "False", "lastTransitionTime": self.cluster.stamp()} if item["type"] == "Ready" else item
            for item in status["conditions"]
        ]
        self.registry.patch_status("pods", meta["namespace"], meta["name"], {**status, "conditions": conditions})
        self.warning(pod, "NodeNotReady", "Node is not ready")

    def _taint(self, node: Obj) -> None:
        """Keeps the taints that follow from conditions and cordoning, then evicts who does not tolerate them."""
        old = node["spec"].get("taints") or []
        wanted = self._wanted_taints(node)
        kept = [taint for taint in old if taint["key"] not in _OWNED]
        for key, effect in wanted:
            known = next((t for t in old if t["key"] == key and t["effect"] == effect), None)
            if known is None:
                known = {"key": key, "effect": effect}
                if effect == "NoExecute":
                    known["timeAdded"] = self.cluster.stamp()
            kept.append(known)
        if kept != old:
            spec = {key: value for key, value in node["spec"].items() if key != "taints"}
            if kept:
                spec["taints"] = kept
            node = self.registry.update("nodes", "", node["metadata"]["name"], {**node, "spec": spec})
        self._evict(node)

    @staticmethod
    def _wanted_taints(node: Obj) -> list[tuple[str, str]]:
        wanted = []
        if node["spec"].get("unschedulable"):
            wanted.append((_UNSCHEDULABLE, "NoSchedule"))
        for condition in node.get("status", {}).get("conditions") or []:
            key = _PRESSURES.get(condition["type"])
            if key is not None and condition["status"] == "True":
                wanted.append((key, "NoSchedule"))
            if condition["type"] == "Ready" and condition["status"] != "True":
                key = _UNREACHABLE if condition["status"] == "Unknown" else _NOT_READY
                wanted += [(key, "NoSchedule"), (key, "NoExecute")]
        return wanted

    def _evict(self, node: Obj) -> None:
        taints = [taint for taint in node["spec"].get("taints") or [] if taint["effect"] == "NoExecute"]
        if not taints:
            return
        soonest: float | None = None
        for pod in self.registry.pods_on_node(node["metadata"]["name"]):
            if pods.is_terminating(pod):
                continue
            wait = self._tolerated_for(pod, taints)
            if wait is None:
                continue
            if wait <= 0:
                self.normal_to_pod(pod)
                self._delete(pod)
            else:
                soonest = wait if soonest is None else min(soonest, wait)
        if soonest is not None:
            self.queue.add_after(f"/{node['metadata']['name']}", soonest)

    def normal_to_pod(self, pod: Obj) -> None:
        where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        text = f"Marking for deletion Pod {where}"
        self.events.normal(pod, "taint-eviction-controller", "TaintManagerEviction", text)

    def _tolerated_for(self, pod: Obj, taints: list[Obj]) -> float | None:
        """Seconds until the pod must go; 0: now; None: never."""
        waits = []
        for taint in taints:
            toleration = tolerates(pod["spec"].get("tolerations") or [], taint)
            if toleration is None:
                return 0.0
            if toleration.get("tolerationSeconds") is None:
                continue
            since = pods.parse_time(taint["timeAdded"]) if "timeAdded" in taint else self.clock.now()
            waits.append(int(toleration["tolerationSeconds"]) - (self.clock.now() - since).total_seconds())
        return max(0.0, min(waits)) if waits else None

    def _delete(self, pod: Obj) -> None:
        meta = pod["metadata"]
        try:
            self.registry.delete("pods", meta["namespace"], meta["name"], uid=meta["uid"])
        except ApiError as error:
            if error.code != 404:
                raise


def _vital(node: Obj) -> list[tuple[str, str]]:
    return [(item["type"], item["status"]) for item in node.get("status", {}).get("conditions") or []]
