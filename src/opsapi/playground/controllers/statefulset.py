"""StatefulSets: pods with an identity, one after the other. After pkg/controller/statefulset."""

from typing import Any

from opsapi.playground.controllers import pods, revisions
from opsapi.playground.controllers.base import ObjectController
from opsapi.playground.registry import ApiError, Obj

_REVISION = "controller-revision-hash"


def ordinal(set_name: str, pod_name: str) -> int | None:
    prefix, _, tail = pod_name.rpartition("-")
    return int(tail) if prefix == set_name and tail.isdigit() else None


class StatefulSetController(ObjectController):
    name = "statefulset"
    resource = "statefulsets.apps"
    kind = "StatefulSet"
    component = "statefulset-controller"
    owned = ("pods",)

    def sync(self, namespace: str, name: str) -> None:
        owner = self.registry.find(self.resource, namespace, name)
        if owner is None or pods.is_terminating(owner):
            return
        update = revisions.ensure(self.registry, owner)
        current = self._current_revision(owner, update)
        failure: ApiError | None = None
        try:
            self._reconcile(owner, current, update)
        except ApiError as error:
            failure = error
        self._write_status(owner, current, update)
        if failure is not None:
            raise failure

    def _current_revision(self, owner: Obj, update: Obj) -> Obj:
        name = owner.get("status", {}).get("currentRevision")
        found = self.registry.find(revisions.RESOURCE, owner["metadata"]["namespace"], name) if name else None
        return found or update

    def _pods(self, owner: Obj) -> dict[int, Obj]:
        found: dict[int, Obj] = {}
        for pod in self.registry.by_owner(owner["metadata"]["uid"], "pods"):
            number = ordinal(owner["metadata"]["name"], pod["metadata"]["name"])
            if number is not None:
                found[number] = pod
        return dict(sorted(found.items()))

    def _reconcile(self, owner: Obj, current: Obj, update: Obj) -> None:
        ordered = owner["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady"
        start = int((owner["spec"].get("ordinals") or {}).get("start", 0))
        wanted = range(start, start + int(owner["spec"].get("replicas", 1)))
        existing = self._pods(owner)
        for number in wanted:
            settled = self._bring_up(owner, number, existing.get(number), current, update)
            if ordered and not settled:
                return
        condemned = sorted((n for n in existing if n not in wanted), reverse=True)
        for number in condemned:
            if not pods.is_terminating(existing[number]):
                self._delete(owner, existing[number])
            if ordered:
                return
        if not condemned:
            self._update(owner, existing, update)

    def _bring_up(self, owner: Obj, number: int, pod: Obj | None, current: Obj, update: Obj) -> bool:
        """Makes the pod where it is missing; whether it is up and available."""
        if pod is None:
            self._create(owner, number, update if number >= self._partition(owner) else current)
            return False
        if pods.is_finished(pod) and not pods.is_terminating(pod):
            meta = owner["metadata"]
            text = f"StatefulSet {meta['namespace']}/{meta['name']} is recreating failed Pod {pod['metadata']['name']}"
            self.warning(owner, "RecreatingFailedPod", text)
            self._delete(owner, pod)
            return False
        if pods.is_terminating(pod):
            return False
        wait = pods.available_in(pod, int(owner["spec"].get("minReadySeconds", 0)), self.clock.now())
        if wait:
            self.queue.add_after(f"{owner['metadata']['namespace']}/{owner['metadata']['name']}", wait)
        return wait == 0

    @staticmethod
    def _partition(owner: Obj) -> int:
        rolling = (owner["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
        start = int((owner["spec"].get("ordinals") or {}).get("start", 0))
        return start + int(rolling.get("partition") or 0)

    def _update(self, owner: Obj, existing: dict[int, Obj], update: Obj) -> None:
        """Replaces the pods of other revisions from the last to the partition, one at a time."""
        strategy = (owner["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
        if strategy == "OnDelete":
            return
        for number in sorted(existing, reverse=True):
            pod = existing[number]
            if number < self._partition(owner):
                return
            if pod["metadata"].get("labels", {}).get(_REVISION) != update["metadata"]["name"]:
                if not pods.is_terminating(pod):
                    self._delete(owner, pod)
                return
            if not pods.is_ready(pod):
                return

    def _create(self, owner: Obj, number: int, revision: Obj) -> None:
        namespace, set_name = owner["metadata"]["namespace"], owner["metadata"]["name"]
        name = f"{set_name}-{number}"
        labels = {
            "apps.kubernetes.io/pod-index": str(number),
            _REVISION: revision["metadata"]["name"],
            "statefulset.kubernetes.io/pod-name": name,
        }
        pod = pods.from_template(revisions.template_of(revision), owner, name, f"{set_name}-", **labels)
        claims: list[Any] = owner["spec"].get("volumeClaimTemplates") or []
        pod["spec"] = {**pod["spec"], "hostname": name, "subdomain": owner["spec"].get("serviceName", "")}
        if claims:
            names = {claim["metadata"]["name"] for claim in claims}
            kept = [volume for volume in pod["spec"].get("volumes") or [] if volume["name"] not in names]
            volumes = [
                {
                    "name": claim["metadata"]["name"],
                    "persistentVolumeClaim": {"claimName": f"{claim['metadata']['name']}-{name}"},
                }
                for claim in claims
            ]
            pod["spec"]["volumes"] = volumes + kept
            self._ensure_claims(owner, name, claims)
        try:
            self.registry.create("pods", namespace, pod)
        except ApiError as error:
            self.warning(owner, "FailedCreate", f"create Pod {name} in StatefulSet {set_name} failed error: {error}")
            raise
        self.normal(owner, "SuccessfulCreate", f"Create Pod {name} in StatefulSet {set_name} successful")

    def _ensure_claims(self, owner: Obj, pod_name: str, templates: list[Any]) -> None:
        namespace = owner["metadata"]["namespace"]
        for template in templates:
            name = f"{template['metadata']['name']}-{pod_name}"
            if self.registry.find("persistentvolumeclaims", namespace, name) is not None:
                continue
            labels = {
                **(template["metadata"].get("labels") or {}),
                **(owner["spec"]["selector"].get("matchLabels") or {}),
            }
            claim = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": template["spec"],
            }
            set_name = owner["metadata"]["name"]
            try:
                self.registry.create("persistentvolumeclaims", namespace, claim)
            except ApiError as error:
                text = f"create Claim {name} for Pod {pod_name} in StatefulSet {set_name} failed error: {error}"
                self.warning(owner, "FailedCreate", text)
                raise
            self.normal(
                owner, "SuccessfulCreate", f"Create Claim {name} Pod {pod_name} in StatefulSet {set_name} success"
            )

    def _delete(self, owner: Obj, pod: Obj) -> None:
        meta = pod["metadata"]
        self.registry.delete("pods", meta["namespace"], meta["name"], uid=meta["uid"])
        text = f"Delete Pod {meta['name']} in StatefulSet {owner['metadata']['name']} successful"
        self.normal(owner, "SuccessfulDelete", text)

    def _write_status(self, owner: Obj, current: Obj, update: Obj) -> None:
        existing = [pod for pod in self._pods(owner).values() if not pods.is_finished(pod)]
        minimum = int(owner["spec"].get("minReadySeconds", 0))
        alive = [pod for pod in existing if not pods.is_terminating(pod)]

        def of_revision(revision: Obj) -> int:
            name = revision["metadata"]["name"]
            return sum(1 for pod in alive if pod["metadata"]["labels"].get(_REVISION) == name)

        ready = sum(1 for pod in existing if pods.is_ready(pod))
        updated = of_revision(update)
        replicas = int(owner["spec"].get("replicas", 1))
        if updated == replicas and ready == replicas and len(existing) == replicas:
            current = update
        figures = {"readyReplicas": ready, "currentReplicas": of_revision(current), "updatedReplicas": updated}
        status: Obj = {
            "observedGeneration": owner["metadata"].get("generation", 1),
            "replicas": len(existing),
            **{name: count for name, count in figures.items() if count},
            "currentRevision": current["metadata"]["name"],
            "updateRevision": update["metadata"]["name"],
            "collisionCount": 0,
            "availableReplicas": sum(1 for p in existing if pods.available_in(p, minimum, self.clock.now()) == 0),
        }
        meta = owner["metadata"]
        self.registry.patch_status(self.resource, meta["namespace"], meta["name"], status)
        in_use = {pod["metadata"]["labels"].get(_REVISION, "") for pod in existing}
        names = {current["metadata"]["name"], update["metadata"]["name"]}
        revisions.prune(self.registry, owner, in_use | names)
