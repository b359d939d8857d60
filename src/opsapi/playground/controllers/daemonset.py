"""DaemonSets: one pod on every node that will have it. After pkg/controller/daemon/daemon_controller.go."""

from opsapi.playground.controllers import pods, revisions
from opsapi.playground.controllers.base import Cluster, ObjectController
from opsapi.playground.controllers.rollout import scaled_value
from opsapi.playground.registry import ApiError, Change, Obj
from opsapi.playground.scheduler.predicates import fits_node_affinity, untolerated_taint

_REVISION = "controller-revision-hash"
_TOLERATIONS = [
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/pid-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
]


def target_node(pod: Obj) -> str:
    """The node a daemon pod is for, bound or not."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field["key"] == "metadata.name":
                return str(field["values"][0])
    return ""


class DaemonSetController(ObjectController):
    name = "daemonset"
    resource = "daemonsets.apps"
    kind = "DaemonSet"
    component = "daemonset-controller"
    owned = ("pods",)

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.registry.subscribe("nodes", self._node_changed)

    def _node_changed(self, change: Change) -> None:
        """Heartbeats change nothing here; labels, taints and existence do."""
        old, new = change.old, change.new
        if (
            old is not None
            and old["spec"] == new["spec"]
            and old["metadata"].get("labels") == new["metadata"].get("labels")
        ):
            return
        for daemon_set in self.registry.iterate(self.resource):
            self.enqueue(daemon_set)

    def sync(self, namespace: str, name: str) -> None:
        owner = self.registry.find(self.resource, namespace, name)
        if owner is None or pods.is_terminating(owner):
            return
        update = revisions.ensure(self.registry, owner)
        failure: ApiError | None = None
        try:
            self._place(owner, update)
            self._roll(owner, update)
        except ApiError as error:
            failure = error
        self._write_status(owner, update)
        if failure is not None:
            raise failure

    def _by_node(self, owner: Obj) -> dict[str, list[Obj]]:
        found: dict[str, list[Obj]] = {}
        for pod in self.registry.by_owner(owner["metadata"]["uid"], "pods"):
            found.setdefault(target_node(pod), []).append(pod)
        return found

    def _wants(self, owner: Obj, node: Obj) -> tuple[bool, bool]:
        """(may a pod start there, may one that runs there go on)."""
        spec = owner["spec"]["template"]["spec"]
        if not fits_node_affinity(spec, node):
            return False, False
        tolerations = [*(spec.get("tolerations") or []), *_TOLERATIONS]
        taint = untolerated_taint(tolerations, node, ("NoSchedule", "NoExecute"))
        evicting = untolerated_taint(tolerations, node, ("NoExecute",))
        return taint is None, evicting is None

    def _place(self, owner: Obj, update: Obj) -> None:
        by_node = self._by_node(owner)
        nodes = {node["metadata"]["name"]: node for node in self.registry.iterate("nodes")}
        for name, node in nodes.items():
            start, stay = self._wants(owner, node)
            existing = by_node.get(name, [])
            alive = [pod for pod in existing if not pods.is_terminating(pod)]
            if not stay:
                for pod in alive:
                    self._delete(owner, pod)
                continue
            for pod in [pod for pod in alive if pods.is_finished(pod)]:
                where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']} on node {name}"
                self.warning(owner, "FailedDaemonPod", f"Found failed daemon pod {where}, will try to kill it")
                self._delete(owner, pod)
            if not existing and start:
                self._create(owner, name, update)
        for name, orphans in by_node.items():
            if name not in nodes:
                for pod in orphans:
                    if not pods.is_terminating(pod):
                        self._delete(owner, pod)

    def _roll(self, owner: Obj, update: Obj) -> None:
        strategy = owner["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") == "OnDelete":
            return
        alive = [pod for found in self._by_node(owner).values() for pod in found if not pods.is_terminating(pod)]
        desired = sum(1 for node in self.registry.iterate("nodes") if self._wants(owner, node)[0])
        limit = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1)
        allowed = max(1, scaled_value(limit, desired, round_up=True))
        available = sum(1 for pod in alive if self._is_available(owner, pod))
        budget = allowed - max(0, desired - available)
        name = update["metadata"]["name"].removeprefix(f"{owner['metadata']['name']}-")
        old = [pod for pod in alive if pod["metadata"].get("labels", {}).get(_REVISION) != name]
        # Old pods that serve nobody cost no availability, so they go without counting.
        for pod in sorted(old, key=lambda item: (self._is_available(owner, item), target_node(item))):
            if self._is_available(owner, pod):
                if budget <= 0:
                    return
                budget -= 1
            self._delete(owner, pod)

    def _is_available(self, owner: Obj, pod: Obj) -> bool:
        return pods.available_in(pod, int(owner["spec"].get("minReadySeconds", 0)), self.clock.now()) == 0

    def _create(self, owner: Obj, node: str, update: Obj) -> None:
        meta = owner["metadata"]
        prefix = f"{meta['name']}-"
        digest = update["metadata"]["name"].removeprefix(prefix)
        generation = (meta.get("annotations") or {}).get("deprecated.daemonset.template.generation", "1")
        labels = {_REVISION: digest, "pod-template-generation": generation}
        template = owner["spec"]["template"]
        pod = pods.from_template(template, owner, prefix + pods.suffix(self.cluster.rng), prefix, **labels)
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        affinity = pod["spec"].get("affinity") or {}
        pinned = {
            **(affinity.get("nodeAffinity") or {}),
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
        }
        pod["spec"] = {
            **pod["spec"],
            "affinity": {**affinity, "nodeAffinity": pinned},
            "tolerations": [*(pod["spec"].get("tolerations") or []), *_TOLERATIONS],
        }
        try:
            self.registry.create("pods", meta["namespace"], pod)
        except ApiError as error:
            self.warning(owner, "FailedCreate", f"Error creating: {error}")
            raise
        self.normal(owner, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _delete(self, owner: Obj, pod: Obj) -> None:
        meta = pod["metadata"]
        self.registry.delete("pods", meta["namespace"], meta["name"], uid=meta["uid"])
        self.normal(owner, "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    def _write_status(self, owner: Obj, update: Obj) -> None:
        by_node = self._by_node(owner)
        digest = update["metadata"]["name"].removeprefix(f"{owner['metadata']['name']}-")
        figures = dict.fromkeys(("desired", "current", "misscheduled", "ready", "available", "updated"), 0)
        for node in self.registry.iterate("nodes"):
            wanted = self._wants(owner, node)[0]
            there = [p for p in by_node.get(node["metadata"]["name"], []) if p["spec"].get("nodeName")]
            if not wanted:
                figures["misscheduled"] += bool(there)
                continue
            figures["desired"] += 1
            if not there:
                continue
            pod = there[0]
            figures["current"] += 1
            figures["ready"] += pods.is_ready(pod)
            figures["available"] += self._is_available(owner, pod)
            figures["updated"] += pod["metadata"].get("labels", {}).get(_REVISION) == digest
        status: Obj = {
            "currentNumberScheduled": figures["current"],
            "numberMisscheduled": figures["misscheduled"],
            "desiredNumberScheduled": figures["desired"],
            "numberReady": figures["ready"],
            "observedGeneration": owner["metadata"].get("generation", 1),
        }
        rest = {
            "updatedNumberScheduled": figures["updated"],
            "numberAvailable": figures["available"],
            "numberUnavailable": figures["desired"] - figures["available"],
        }
        status |= {name: count for name, count in rest.items() if count}
        meta = owner["metadata"]
        self.registry.patch_status(self.resource, meta["namespace"], meta["name"], status)
        in_use = {
            f"{meta['name']}-{pod['metadata'].get('labels', {}).get(_REVISION, '')}"
            for found in by_node.values()
            for pod in found
        }
        revisions.prune(self.registry, owner, in_use | {update["metadata"]["name"]})
