"""ResourceQuotas' status: what their namespace uses."""

from opsapi.playground.controllers.base import Cluster, ObjectController
from opsapi.playground.machinery.quota import quantity_text
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.registry import Change, ChangeType

_NEVER_COUNTED = frozenset({"events", "leases.coordination.k8s.io", "endpoints", "nodes"})


class QuotaController(ObjectController):
    name = "resourcequota"
    resource = "resourcequotas"
    kind = "ResourceQuota"
    component = "resourcequota-controller"

    def __init__(self, cluster: Cluster, objects: ObjectRegistry) -> None:
        super().__init__(cluster)
        self._objects = objects
        self._quotas: dict[str, set[str]] = {}
        self.registry.subscribe("*", self._anything)

    def _changed(self, change: Change) -> None:
        meta = change.new["metadata"]
        names = self._quotas.setdefault(meta["namespace"], set())
        if change.type is ChangeType.DELETED:
            names.discard(meta["name"])
        else:
            names.add(meta["name"])
            self.enqueue(change.new)

    def _anything(self, change: Change) -> None:
        namespace = change.new["metadata"].get("namespace", "")
        names = self._quotas.get(namespace)
        if not names or change.resource in _NEVER_COUNTED:
            return
        for name in sorted(names):
            self.queue.add(f"{namespace}/{name}")

    def sync(self, namespace: str, name: str) -> None:
        quota = self.registry.find(self.resource, namespace, name)
        if quota is None:
            return
        hard = quota["spec"].get("hard") or {}
        used = self._objects.quota_usage.used(quota)
        text = {item: quantity_text(amount, item) for item, amount in sorted(used.items())}
        self.registry.patch_status(self.resource, namespace, name, {"hard": hard, "used": text})
