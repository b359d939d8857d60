"""DeleteBackupRequests, and the garbage collector that makes them for what has expired."""

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import ObjectController
from opsapi.playground.controllers.queue import Controller
from opsapi.playground.registry import Obj
from opsapi.playground.velero.server import POLL, Server
from opsapi.playground.velero.storage import (
    BACKUP_NAME,
    BACKUP_UID,
    BACKUPS,
    DELETIONS,
    NAMESPACE,
    RESTORES,
    StoredBackup,
    with_spec,
)

_GC_EVERY = 3600.0
_KEPT = 86400.0
"""Seconds for which a processed request stays."""
_DELETING = 1.0
_RUNNING = ("New", "InProgress", "WaitingForPluginOperations", "WaitingForPluginOperationsPartiallyFailed")


class DeletionController(ObjectController):
    name = "velero-deletions"
    resource = DELETIONS
    kind = "DeleteBackupRequest"
    component = "velero"

    def __init__(self, server: Server) -> None:
        super().__init__(server.cluster)
        self._server = server
        self._begun: dict[str, float] = {}

    def sync(self, namespace: str, name: str) -> None:
        request = self.registry.find(DELETIONS, namespace, name)
        if request is None or namespace != NAMESPACE:
            return
        request = with_spec(request)
        if self._server.faults.velero_down():
            self.queue.add_after(f"{namespace}/{name}", POLL)
            return
        phase = (request.get("status") or {}).get("phase", "")
        if phase == "Processed":
            self._forget(request)
        elif phase == "InProgress":
            self._delete(request)
        else:
            self._begin(request)

    def _forget(self, request: Obj) -> None:
        born = self.clock.at(pods.parse_time(request["metadata"]["creationTimestamp"]))
        left = born + _KEPT - self.clock.monotonic()
        if left > 0:
            self.queue.add_after(f"{NAMESPACE}/{request['metadata']['name']}", left)
        else:
            self.registry.delete(DELETIONS, NAMESPACE, request["metadata"]["name"])

    def _begin(self, request: Obj) -> None:
        name = request["spec"].get("backupName") or ""
        backup = self.registry.find(BACKUPS, NAMESPACE, name) if name else None
        problem = self._problem(name, backup)
        if problem:
            self._server.write(DELETIONS, request, {"phase": "Processed", "errors": [problem]})
            return
        assert backup is not None
        meta = request["metadata"]
        labels = {**(meta.get("labels") or {}), BACKUP_NAME: name, BACKUP_UID: backup["metadata"]["uid"]}
        changed = {**request, "metadata": {**meta, "labels": labels}}
        request = self._server.update(DELETIONS, changed)
        self._server.write(DELETIONS, request, {"phase": "InProgress"})
        self._server.write(BACKUPS, backup, {**backup["status"], "phase": "Deleting"})
        self._begun[meta["uid"]] = self.clock.monotonic()
        self.queue.add_after(f"{NAMESPACE}/{meta['name']}", _DELETING)

    def _problem(self, name: str, backup: Obj | None) -> str:
        if not name:
            return "spec.backupName is required"
        if backup is None:
            return "backup not found"
        if (backup.get("status") or {}).get("phase", "New") in _RUNNING:
            return "backup is still in progress"
        location = with_spec(backup)["spec"].get("storageLocation", "")
        found = self._server.location(location)
        if found is None:
            return f"backup storage location {location} not found"
        if with_spec(found)["spec"].get("accessMode") == "ReadOnly":
            mode = "is currently in read-only mode"
            return f"cannot delete backup because backup storage location {location} {mode}"
        return ""

    def _delete(self, request: Obj) -> None:
        """Its own write of the phase brings it here at once; what it does takes a moment longer."""
        left = self._begun.get(request["metadata"]["uid"], 0.0) + _DELETING - self.clock.monotonic()
        if left > 0.001:
            return
        self._begun.pop(request["metadata"]["uid"], None)
        name = request["spec"]["backupName"]
        backup = self.registry.find(BACKUPS, NAMESPACE, name)
        stored = self._server.storage.get(name)
        location = stored.location if stored is not None else ""
        if location and self._server.faults.backup_storage_away(location):
            why = "error deleting backup from backup storage: RequestError: send request failed"
            self._server.write(DELETIONS, request, {"phase": "Processed", "errors": [why]})
            if backup is not None and stored is not None:
                self._server.write(BACKUPS, backup, stored.backup["status"])
            return
        if stored is not None:
            self._drop(stored)
        for restore in self.registry.iterate(RESTORES, NAMESPACE):
            if with_spec(restore)["spec"].get("backupName") == name:
                self.registry.delete(RESTORES, NAMESPACE, restore["metadata"]["name"])
        if backup is not None:
            self.registry.delete(BACKUPS, NAMESPACE, name)
        self._server.write(DELETIONS, request, {"phase": "Processed"})

    def _drop(self, stored: StoredBackup) -> None:
        for record in stored.snapshots:
            self._server.disks.delete_snapshot(record.handle)
        self._server.storage.delete(stored.name)


class GarbageCollector(Controller):
    """Once an hour it asks for the deletion of backups whose time is over."""

    name = "velero-gc"

    def __init__(self, server: Server) -> None:
        super().__init__(server.cluster.clock)
        self._server = server
        self.registry = server.cluster.registry
        self.clock.call_later(_GC_EVERY, self._tick)

    def _tick(self) -> None:
        self.queue.add(f"{NAMESPACE}/")
        self.clock.call_later(_GC_EVERY, self._tick)

    def sync(self, namespace: str, name: str) -> None:
        del name
        if self._server.faults.velero_down():
            return
        asked = {
            with_spec(one)["spec"].get("backupName")
            for one in self.registry.iterate(DELETIONS, namespace)
            if (one.get("status") or {}).get("phase") != "Processed"
        }
        for backup in self.registry.iterate(BACKUPS, namespace):
            meta = backup["metadata"]
            expiration = (backup.get("status") or {}).get("expiration")
            if not expiration or pods.parse_time(expiration) > self.clock.now() or meta["name"] in asked:
                continue
            if not self._server.is_available(with_spec(backup)["spec"].get("storageLocation", "")):
                continue
            labels = {BACKUP_NAME: meta["name"], BACKUP_UID: meta["uid"]}
            made = {
                "apiVersion": "velero.io/v1",
                "kind": "DeleteBackupRequest",
                "metadata": {"generateName": f"{meta['name']}-", "namespace": namespace, "labels": labels},
                "spec": {"backupName": meta["name"]},
            }
            self._server.create(DELETIONS, namespace, made)
