"""kube-scheduler: binds pending pods to nodes, or says why it cannot. After pkg/scheduler/schedule_one.go."""

import zlib
from collections import Counter

from opsapi.playground.controllers.base import Cluster, set_condition
from opsapi.playground.controllers.pods import controller_of, is_finished, is_terminating
from opsapi.playground.controllers.queue import Controller
from opsapi.playground.registry import ApiError, Change, ChangeType, Obj
from opsapi.playground.scheduler.predicates import (
    Demand,
    NodeState,
    demand_of,
    host_ports,
    reasons_against,
    score,
    unschedulable_message,
)
from opsapi.playground.scheduler.topology import Topology

_FLUSH = 300.0
"""A pod that no event has made another try for is tried again after five minutes."""
_FEASIBLE_ENOUGH = 100
_SELECTED = "volume.kubernetes.io/selected-node"
COMPONENT = "default-scheduler"


class Scheduler(Controller):
    name = "scheduler"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.clock)
        self.cluster = cluster
        self.registry = cluster.registry
        self.nodes: dict[str, NodeState] = {}
        self._counted: dict[str, tuple[str, Demand, list[tuple[str, int]]]] = {}
        self._owners: dict[str, Counter[str]] = {}
        self._owner_of: dict[str, str] = {}
        self._waiting: dict[str, None] = {}
        self._attempts: Counter[str] = Counter()
        self._start = 0
        self._topology = Topology(self.registry)
        self.registry.subscribe("nodes", self._node_changed)
        self.registry.subscribe("pods", self._pod_changed)
        self.registry.subscribe("persistentvolumeclaims", self._claim_changed)

    # Bookkeeping

    def _node_changed(self, change: Change) -> None:
        name = change.new["metadata"]["name"]
        if change.type is ChangeType.DELETED:
            self.nodes.pop(name, None)
            return
        if name in self.nodes:
            self.nodes[name].node = change.new
        else:
            self.nodes[name] = NodeState(change.new)
            for uid, (node, demand, ports) in self._counted.items():
                if node == name and uid:
                    self.nodes[name].add(demand, ports)
        if change.old is None or _schedulability(change.old) != _schedulability(change.new):
            self._retry_waiting()

    def _pod_changed(self, change: Change) -> None:
        pod = change.new
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName", "")
        gone = change.type is ChangeType.DELETED or is_finished(pod)
        if gone:
            self._forget(uid)
            self._waiting.pop(_key(pod), None)
            return
        respecified = change.old is not None and change.old["spec"] is not pod["spec"]
        if not node:
            ours = pod["spec"].get("schedulerName", COMPONENT) == COMPONENT
            if ours and (respecified or change.type is ChangeType.ADDED):
                self.queue.add(_key(pod))
            return
        if uid not in self._counted:
            self._count(pod)
        elif respecified:
            self._forget(uid)
            self._count(pod)

    def _count(self, pod: Obj) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"]["nodeName"]
        demand, ports = demand_of(pod["spec"]), host_ports(pod["spec"])
        self._counted[uid] = (node, demand, ports)
        owner = controller_of(pod)
        if owner is not None:
            self._owner_of[uid] = owner["uid"]
            self._owners.setdefault(owner["uid"], Counter())[node] += 1
        if node in self.nodes:
            self.nodes[node].add(demand, ports)

    def _forget(self, uid: str) -> None:
        known = self._counted.pop(uid, None)
        if known is None:
            return
        node, demand, ports = known
        if node in self.nodes:
            self.nodes[node].add(demand, ports, -1)
        owner = self._owner_of.pop(uid, None)
        if owner is not None:
            self._owners[owner][node] -= 1
            if not +self._owners[owner]:
                del self._owners[owner]
        self._retry_waiting()

    def _claim_changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if old is not None and (old.get("status"), old["spec"]) == (new.get("status"), new["spec"]):
            return
        self._retry_waiting()

    def _retry_waiting(self) -> None:
        """Something that may help has happened: each waiting pod gets its try, after its back-off of 1 to 10 s."""
        for key in self._waiting:
            self.queue.add_after(key, min(2.0 ** min(self._attempts[key] - 1, 4), 10.0))

    # One pod

    def sync(self, namespace: str, name: str) -> None:
        pod = self.registry.find("pods", namespace, name)
        key = f"{namespace}/{name}"
        if pod is None or pod["spec"].get("nodeName") or is_terminating(pod):
            self._waiting.pop(key, None)
            self._attempts.pop(key, None)
            return
        if pod["spec"].get("schedulingGates"):
            self._set_condition(pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
            return
        problem = self._volume_problem(pod)
        if problem:
            self._fail(pod, problem)
            return
        node = self._choose(pod)
        if node is not None and self._volumes_ready(pod, node):
            self._bind(pod, node)

    def _choose(self, pod: Obj) -> str | None:
        """The best node; None where none fits, which is then told."""
        spec, demand = pod["spec"], demand_of(pod["spec"])
        names = list(self.nodes)
        reasons: list[str] = []
        helpless = 0
        feasible: list[NodeState] = []
        enough = max(_FEASIBLE_ENOUGH, len(names) // 20)
        self._topology.prepare(pod, self.nodes)
        for step in range(len(names)):
            state = self.nodes[names[(self._start + step) % len(names)]]
            against, preemption_helps = reasons_against(spec, demand, state)
            if not against:
                conflict = self._topology.conflict(state.node)
                against = [conflict] if conflict else []
            if not against:
                feasible.append(state)
                if len(feasible) >= enough:
                    self._start = (self._start + step + 1) % len(names)
                    break
            else:
                reasons += against
                helpless += not preemption_helps
        if not feasible:
            total = len(names)
            self._fail(pod, unschedulable_message(total, reasons, helpless, total - helpless))
            return None
        return self._best(pod, demand, feasible)

    def _best(self, pod: Obj, demand: Demand, feasible: list[NodeState]) -> str:
        owner = controller_of(pod)
        peers = self._owners.get(owner["uid"], Counter()) if owner is not None else Counter[str]()
        uid = pod["metadata"]["uid"]

        def rank(state: NodeState) -> tuple[float, int]:
            name = state.node["metadata"]["name"]
            # Ties fall by a hash of pod and node: spread evenly, and the same in every run of a seed.
            return round(score(state, demand, peers[name]), 6), zlib.crc32(f"{uid}{name}".encode())

        return str(max(feasible, key=rank).node["metadata"]["name"])

    def _bind(self, pod: Obj, node: str) -> None:
        meta = pod["metadata"]
        stamp = self.cluster.stamp()
        bound = {**pod, "spec": {**pod["spec"], "nodeName": node}}
        try:
            bound = self.registry.update("pods", meta["namespace"], meta["name"], bound, subresource="binding")
        except ApiError:
            self.queue.add_rate_limited(_key(pod))
            return
        status = bound.get("status", {})
        scheduled = {"type": "PodScheduled", "status": "True"}
        conditions = [c for c in status.get("conditions") or [] if c["type"] != "PodScheduled"]
        conditions += set_condition([], {**scheduled, "lastProbeTime": None}, stamp=stamp)
        self.registry.patch_status("pods", meta["namespace"], meta["name"], {**status, "conditions": conditions})
        self._waiting.pop(_key(pod), None)
        self._attempts.pop(_key(pod), None)
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        self.cluster.events.action(bound, COMPONENT, "Normal", "Scheduled", text, "Binding")

    def _fail(self, pod: Obj, message: str) -> None:
        key = _key(pod)
        self._waiting[key] = None
        self._attempts[key] += 1
        self.cluster.events.action(pod, COMPONENT, "Warning", "FailedScheduling", message, "Scheduling")
        self._set_condition(pod, "Unschedulable", message)
        self.queue.add_after(key, _FLUSH)

    def _set_condition(self, pod: Obj, reason: str, message: str) -> None:
        meta, status = pod["metadata"], pod.get("status", {})
        new = {"type": "PodScheduled", "status": "False", "lastProbeTime": None, "reason": reason, "message": message}
        conditions = set_condition(status.get("conditions") or [], new, stamp=self.cluster.stamp())
        self.registry.patch_status("pods", meta["namespace"], meta["name"], {**status, "conditions": conditions})

    # Volumes

    def _claims(self, pod: Obj) -> list[tuple[str, Obj | None]]:
        names = [
            str(volume["persistentVolumeClaim"]["claimName"])
            for volume in pod["spec"].get("volumes") or []
            if "persistentVolumeClaim" in volume
        ]
        namespace = pod["metadata"]["namespace"]
        return [(name, self.registry.find("persistentvolumeclaims", namespace, name)) for name in names]

    def _delays(self, claim: Obj) -> bool:
        found = self.registry.find("storageclasses.storage.k8s.io", "", claim["spec"].get("storageClassName") or "")
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _volume_problem(self, pod: Obj) -> str | None:
        total = len(self.nodes)
        tail = (
            f"no new claims to deallocate, preemption: 0/{total} nodes are available: "
            f"{total} Preemption is not helpful for scheduling."
        )
        for name, claim in self._claims(pod):
            if claim is None:
                return f'0/{total} nodes are available: persistentvolumeclaim "{name}" not found. {tail}'
            if claim.get("status", {}).get("phase") == "Lost":
                lost = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume'
                return f"0/{total} nodes are available: {lost}. {tail}"
            if claim.get("status", {}).get("phase") != "Bound" and not self._delays(claim):
                return f"0/{total} nodes are available: pod has unbound immediate PersistentVolumeClaims. {tail}"
        return None

    def _volumes_ready(self, pod: Obj, node: str) -> bool:
        """Asks the provisioner for volumes that wait for their first consumer; whether all are bound now."""
        ready = True
        for name, claim in self._claims(pod):
            if claim is None or claim.get("status", {}).get("phase") == "Bound":
                continue
            ready = False
            annotations = claim["metadata"].get("annotations") or {}
            if annotations.get(_SELECTED) != node:
                meta = {**claim["metadata"], "annotations": {**annotations, _SELECTED: node}}
                self.registry.update("persistentvolumeclaims", meta["namespace"], name, {**claim, "metadata": meta})
        if not ready:
            self._waiting[_key(pod)] = None
            self._attempts[_key(pod)] = max(1, self._attempts[_key(pod)])
        return ready


def _key(pod: Obj) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _schedulability(node: Obj) -> tuple[object, ...]:
    status = node.get("status", {})
    return (
        node["spec"].get("unschedulable"),
        node["spec"].get("taints"),
        node["metadata"].get("labels"),
        status.get("allocatable"),
    )
