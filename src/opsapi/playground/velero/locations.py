"""BackupStorageLocations: validated every minute; backups that lie there and have no object get one again."""

from collections.abc import Callable

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster, ObjectController
from opsapi.playground.registry import Obj
from opsapi.playground.velero.durations import seconds
from opsapi.playground.velero.storage import BACKUPS, LOCATIONS, NAMESPACE, BackupStorage, with_spec

_EVERY = 60.0
_AWAY = 'BackupStorageLocation "{}" is unavailable: rpc error: code = Unknown desc = RequestError: send request failed'


class LocationController(ObjectController):
    """`away` says whether a fault keeps a location from answering, `down` whether the server itself is off."""

    name = "velero-locations"
    resource = LOCATIONS
    kind = "BackupStorageLocation"
    component = "velero"

    def __init__(
        self, cluster: Cluster, storage: BackupStorage, away: Callable[[str], bool], down: Callable[[], bool]
    ) -> None:
        super().__init__(cluster)
        self._storage = storage
        self._away = away
        self._down = down

    def sync(self, namespace: str, name: str) -> None:
        location = self.registry.find(LOCATIONS, namespace, name)
        if location is None or namespace != NAMESPACE:
            return
        location = with_spec(location)
        every = seconds(location["spec"].get("validationFrequency"), _EVERY)
        self.queue.add_after(f"{namespace}/{name}", every)
        if self._down() or not self._is_due(location, every):
            return
        status: Obj = {**(location.get("status") or {}), "lastValidationTime": self.cluster.stamp()}
        status.pop("message", None)
        if self._away(name):
            status |= {"phase": "Unavailable", "message": _AWAY.format(name)}
        else:
            status |= {"phase": "Available", "lastSyncedTime": self.cluster.stamp()}
            self._bring_back(name)
        self.registry.patch_status(LOCATIONS, namespace, name, status)

    def _is_due(self, location: Obj, every: float) -> bool:
        """Its own write must not be the cause of the next."""
        last = (location.get("status") or {}).get("lastValidationTime")
        return not last or self.clock.monotonic() - self.clock.at(pods.parse_time(last)) >= every - 1

    def _bring_back(self, location: str) -> None:
        """As the backup sync does: deleting the object alone deletes no backup."""
        for stored in self._storage.in_location(location):
            if self.registry.find(BACKUPS, NAMESPACE, stored.name) is not None:
                continue
            meta = stored.backup["metadata"]
            kept = {key: meta[key] for key in ("name", "labels", "annotations") if key in meta}
            self.registry.create(BACKUPS, NAMESPACE, {**stored.backup, "metadata": {**kept, "namespace": NAMESPACE}})
