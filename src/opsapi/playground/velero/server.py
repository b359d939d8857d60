"""What Velero's controllers share: storage, faults, and how an object of theirs is written."""

from dataclasses import dataclass

from opsapi.playground.controllers.base import Cluster
from opsapi.playground.disks import Disks
from opsapi.playground.faults.world import Faults
from opsapi.playground.machinery.registry import ObjectRegistry, WriteOptions
from opsapi.playground.registry import Obj, User
from opsapi.playground.velero.storage import LOCATIONS, NAMESPACE, BackupStorage, with_spec

ITEMS_A_SECOND = 40.0
"""How fast objects are written to a backup and restored from it."""
POLL = 5.0
FINALIZE = 2.0
USER = User("system:serviceaccount:velero:velero", ("system:masters",))
_WRITE = WriteOptions(manager="velero-server")


@dataclass(frozen=True, slots=True)
class Server:
    cluster: Cluster
    objects: ObjectRegistry
    storage: BackupStorage
    disks: Disks
    faults: Faults

    def location(self, name: str) -> Obj | None:
        return self.objects.find(LOCATIONS, NAMESPACE, name)

    def default_location(self) -> str:
        for found in self.objects.iterate(LOCATIONS, NAMESPACE):
            if with_spec(found)["spec"].get("default"):
                return str(found["metadata"]["name"])
        return "default"

    def is_available(self, name: str) -> bool:
        """As last validated: what Velero believes, which may be a minute old."""
        found = self.location(name)
        return found is not None and (found.get("status") or {}).get("phase") == "Available"

    def write(self, resource: str, obj: Obj, status: Obj) -> Obj:
        """The object with this status; counters of nothing are left out, as Go's omitempty does.

        Velero's kinds have no status subresource: their status is written, and owned, like any other field.
        """
        meta = obj["metadata"]
        tidy = {key: value for key, value in status.items() if value not in (0, "", [], None)}
        current = self.objects.get(resource, meta["namespace"], meta["name"])
        return self.update(resource, {**current, "status": tidy})

    def update(self, resource: str, obj: Obj) -> Obj:
        meta = obj["metadata"]
        return self.objects.update(resource, meta.get("namespace", ""), meta["name"], obj, user=USER, options=_WRITE)

    def create(self, resource: str, namespace: str, obj: Obj) -> Obj:
        return self.objects.create(resource, namespace, obj, user=USER, options=_WRITE)
