"""Signs of life: each kubelet renews a Lease and now and then its node's status. Cheap where there are many.

The node controller reads the heartbeat from memory. Leases and statuses are written for clients to see: each every 10 s
and five minutes as in life, and less often in fleets of over 100 nodes (one in ten writes for 1,000 of them).
"""

from opsapi.playground.controllers.base import Cluster
from opsapi.playground.controllers.events import micro_time
from opsapi.playground.controllers.queue import Controller
from opsapi.playground.kubelet.kubelet import Kubelets
from opsapi.playground.registry import ApiError, Change, ChangeType, Obj

_LEASES = "leases.coordination.k8s.io"
NAMESPACE = "kube-node-lease"
_RENEW = 10.0
_STATUS = 300.0
_MANY = 100
_HEALTHY = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


class Heartbeats(Controller):
    name = "heartbeat"

    def __init__(self, cluster: Cluster, kubelets: Kubelets) -> None:
        super().__init__(cluster.clock)
        self.cluster = cluster
        self.registry = cluster.registry
        self._kubelets = kubelets
        self._silent_since: dict[str, float] = {}
        self._reported: dict[str, float] = {}
        self._pressure: dict[tuple[str, str], tuple[str, str]] = {}
        self._count = 0
        self.registry.subscribe("nodes", self._node_changed)

    def _node_changed(self, change: Change) -> None:
        name = change.new["metadata"]["name"]
        if change.type is ChangeType.ADDED:
            self._count += 1
            self.queue.add(f"/{name}")
        elif change.type is ChangeType.DELETED:
            self._count -= 1
            self._reported.pop(name, None)

    def last(self, node: str) -> float | None:
        """The reading of the node's last sign of life: now, for one that is up."""
        return self._silent_since.get(node, self.clock.monotonic())

    def set_power(self, node: str, up: bool) -> None:
        """Switches a node off, or on again: then it reports at once."""
        self._kubelets.set_power(node, up)
        if up:
            self._silent_since.pop(node, None)
            self._reported.pop(node, None)
        else:
            self._silent_since.setdefault(node, self.clock.monotonic())
        self.queue.add(f"/{node}")

    def set_pressure(self, node: str, kind: str, reason: str = "", message: str = "") -> None:
        """Makes a node report MemoryPressure, DiskPressure or PIDPressure; without a reason, it ends."""
        if reason:
            self._pressure[(node, kind)] = (reason, message)
        else:
            self._pressure.pop((node, kind), None)
        self._reported.pop(node, None)
        self.queue.add(f"/{node}")

    def sync(self, _namespace: str, name: str) -> None:
        node = self.registry.find("nodes", "", name)
        if node is None or name in self._silent_since:
            return
        now = self.clock.monotonic()
        stretch = max(1.0, self._count / _MANY)
        if now - self._reported.get(name, -_STATUS * stretch) >= _STATUS * stretch:
            self._report(node)
            self._reported[name] = now
        self._renew(node)
        self.queue.add_after(f"/{name}", _RENEW * stretch)

    def _report(self, node: Obj) -> None:
        stamp = self.cluster.stamp()
        old = {item["type"]: item for item in node.get("status", {}).get("conditions") or []}
        name = node["metadata"]["name"]
        conditions = []
        for kind, usual, reason, message in _HEALTHY:
            status = usual
            if (name, kind) in self._pressure:
                status = "True"
                reason, message = self._pressure[(name, kind)]
            known = old.pop(kind, None)
            since = known["lastTransitionTime"] if known is not None and known["status"] == status else stamp
            conditions.append(
                {
                    "type": kind,
                    "status": status,
                    "lastHeartbeatTime": stamp,
                    "lastTransitionTime": since,
                    "reason": reason,
                    "message": message,
                }
            )
            self._announce(node, kind, status, known)
        status_now = {**node.get("status", {}), "conditions": [*old.values(), *conditions]}
        self.registry.patch_status("nodes", "", name, status_now)

    def _announce(self, node: Obj, kind: str, status: str, known: Obj | None) -> None:
        name = node["metadata"]["name"]
        if known is None or known["status"] == status:
            return
        words = {
            ("Ready", "True"): "NodeReady",
            ("MemoryPressure", "True"): "NodeHasInsufficientMemory",
            ("MemoryPressure", "False"): "NodeHasSufficientMemory",
            ("DiskPressure", "True"): "NodeHasDiskPressure",
            ("DiskPressure", "False"): "NodeHasNoDiskPressure",
            ("PIDPressure", "True"): "NodeHasInsufficientPID",
            ("PIDPressure", "False"): "NodeHasSufficientPID",
        }
        reason = words.get((kind, status))
        if reason is not None:
            text = f"Node {name} status is now: {reason}"
            self.cluster.events.normal(node, "kubelet", reason, text, host=name)

    def _renew(self, node: Obj) -> None:
        name = node["metadata"]["name"]
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": 40,
            "renewTime": micro_time(self.clock.now()),
        }
        lease = self.registry.find(_LEASES, NAMESPACE, name)
        try:
            if lease is None:
                owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
                meta = {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]}
                body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
                self.registry.create(_LEASES, NAMESPACE, body)
            else:
                self.registry.update(_LEASES, NAMESPACE, name, {**lease, "spec": spec})
        except ApiError:
            return
