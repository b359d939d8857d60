"""ReplicaSets: keep so many pods of a template. After pkg/controller/replicaset/replica_set.go."""

from collections import Counter

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import ObjectController, set_condition
from opsapi.playground.registry import ApiError, Obj

_BURST = 500


class ReplicaSetController(ObjectController):
    """Expectations are not needed here: the registry is read synchronously, so no cache can lag behind own writes."""

    name = "replicaset"
    resource = "replicasets.apps"
    kind = "ReplicaSet"
    component = "replicaset-controller"
    owned = ("pods",)

    def sync(self, namespace: str, name: str) -> None:
        rs = self.registry.find(self.resource, namespace, name)
        if rs is None:
            return
        everything = self.registry.by_owner(rs["metadata"]["uid"], "pods")
        active = [pod for pod in everything if pods.is_active(pod)]
        failure: ApiError | None = None
        if not pods.is_terminating(rs):
            try:
                self._scale(rs, active)
            except ApiError as error:
                failure = error
        self._update_status(namespace, name, failure)
        if failure is not None:
            raise failure

    def _scale(self, rs: Obj, active: list[Obj]) -> None:
        difference = len(active) - int(rs["spec"].get("replicas", 1))
        if difference < 0:
            self._create(rs, min(-difference, _BURST))
        elif difference > 0:
            self._delete(rs, active, min(difference, _BURST))

    def _create(self, rs: Obj, count: int) -> None:
        """Creates in batches of 1, 2, 4, … and stops at the first failure, so that a full quota is not hammered."""
        done, batch = 0, 1
        while done < count:
            for _ in range(min(batch, count - done)):
                self._create_one(rs)
                done += 1
            batch *= 2

    def _create_one(self, rs: Obj) -> None:
        prefix = f"{rs['metadata']['name']}-"
        pod = pods.from_template(rs["spec"]["template"], rs, prefix + pods.suffix(self.cluster.rng), prefix)
        try:
            self.registry.create("pods", rs["metadata"]["namespace"], pod)
        except ApiError as error:
            self.warning(rs, "FailedCreate", f"Error creating: {error}")
            raise
        self.normal(rs, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _delete(self, rs: Obj, active: list[Obj], count: int) -> None:
        per_node = Counter(pod["spec"].get("nodeName", "") for pod in active)
        ranked = sorted(active, key=lambda p: pods.deletion_rank(p, per_node[p["spec"].get("nodeName", "")]))
        for pod in ranked[:count]:
            meta = pod["metadata"]
            try:
                self.registry.delete("pods", meta["namespace"], meta["name"], uid=meta["uid"])
            except ApiError as error:
                if error.code == 404:
                    continue
                self.warning(rs, "FailedDelete", f"Error deleting: {error}")
                raise
            self.normal(rs, "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    def _update_status(self, namespace: str, name: str, failure: ApiError | None) -> None:
        rs = self.registry.find(self.resource, namespace, name)
        if rs is None:
            return
        status = self._status(rs, failure)
        self.registry.patch_status(self.resource, namespace, name, status)

    def _status(self, rs: Obj, failure: ApiError | None) -> Obj:
        everything = self.registry.by_owner(rs["metadata"]["uid"], "pods")
        active = [pod for pod in everything if pods.is_active(pod)]
        wanted = (rs["spec"]["template"].get("metadata") or {}).get("labels") or {}
        labelled = sum(1 for p in active if wanted.items() <= (p["metadata"].get("labels") or {}).items())
        ready, available = self._count_ready(rs, active)
        status: Obj = {"replicas": len(active)}
        if labelled:
            status["fullyLabeledReplicas"] = labelled
        if ready:
            status["readyReplicas"] = ready
        if available:
            status["availableReplicas"] = available
        status["terminatingReplicas"] = sum(
            1 for pod in everything if pods.is_terminating(pod) and not pods.is_finished(pod)
        )
        status["observedGeneration"] = rs["metadata"].get("generation", 1)
        conditions = [c for c in rs.get("status", {}).get("conditions") or [] if c["type"] != "ReplicaFailure"]
        if failure is not None:
            old = [c for c in rs.get("status", {}).get("conditions") or [] if c["type"] == "ReplicaFailure"]
            reason = "FailedCreate" if len(active) < int(rs["spec"].get("replicas", 1)) else "FailedDelete"
            new = {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": str(failure)}
            # The first failure's text stays until the condition goes, as in the real controller.
            conditions += old or set_condition([], new, stamp=self.cluster.stamp())
        if conditions:
            status["conditions"] = conditions
        return status

    def _count_ready(self, rs: Obj, active: list[Obj]) -> tuple[int, int]:
        minimum = int(rs["spec"].get("minReadySeconds", 0))
        ready = available = 0
        soonest: float | None = None
        for pod in active:
            wait = pods.available_in(pod, minimum, self.clock.now())
            if wait is None:
                continue
            ready += 1
            if wait <= 0:
                available += 1
            else:
                soonest = wait if soonest is None else min(soonest, wait)
        if soonest is not None:
            self.queue.add_after(f"{rs['metadata']['namespace']}/{rs['metadata']['name']}", soonest)
        return ready, available
