"""Backups: New, InProgress, WaitingForPluginOperations, Finalizing, and an end. After pkg/controller/backup_*.go."""

from dataclasses import dataclass, field
from datetime import timedelta

from opsapi.kit.clock import rfc3339
from opsapi.playground.controllers.base import ObjectController
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.snapshots.controller import SNAPSHOTS
from opsapi.playground.velero import volumes
from opsapi.playground.velero.durations import seconds
from opsapi.playground.velero.selection import collect, mixes_filters, problems_of
from opsapi.playground.velero.server import FINALIZE, ITEMS_A_SECOND, POLL, Server
from opsapi.playground.velero.storage import (
    BACKUPS,
    LOCATION_NAME,
    NAMESPACE,
    Item,
    StoredBackup,
    VolumeSnapshotRecord,
    with_spec,
)

_TTL = 30 * 86400.0
_SNAPSHOT_TIMEOUT = 600.0
_DEFAULTS = {"csiSnapshotTimeout": "10m0s", "itemOperationTimeout": "4h0m0s", "ttl": "720h0m0s"}
_RUNNING = ("InProgress", "WaitingForPluginOperations", "WaitingForPluginOperationsPartiallyFailed")
_BOTH_SELECTORS = "encountered labelSelector as well as orLabelSelectors in backup spec, only one can be specified"
_MIXED = (
    "include-resources, exclude-resources and include-cluster-resources are old filter parameters.\n"
    "They cannot be used with include-exclude policies."
)


@dataclass(slots=True)
class _Run:
    """A backup that this server is making; it does not survive the server, as in life."""

    items: tuple[Item, ...]
    started: float
    waiting: list[Obj] = field(default_factory=list)
    kept: list[VolumeSnapshotRecord] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    attempted: int = 0
    finalizing: float = 0.0


class BackupController(ObjectController):
    name = "velero-backups"
    resource = BACKUPS
    kind = "Backup"
    component = "velero"

    def __init__(self, server: Server) -> None:
        super().__init__(server.cluster)
        self._server = server
        self._runs: dict[str, _Run] = {}

    def sync(self, namespace: str, name: str) -> None:
        backup = self.registry.find(BACKUPS, namespace, name)
        if backup is None or namespace != NAMESPACE:
            return
        backup = with_spec(backup)
        if self._server.faults.velero_down():
            self.queue.add_after(f"{namespace}/{name}", POLL)
            return
        phase = (backup.get("status") or {}).get("phase", "")
        if phase in ("", "New"):
            self._begin(backup)
        elif phase in (*_RUNNING, "Finalizing", "FinalizingPartiallyFailed"):
            run = self._runs.get(backup["metadata"]["uid"])
            if run is None:
                self._end(
                    backup, "Failed", failureReason=f"found a backup with status {phase!r} during the server starting"
                )
            else:
                self._go_on(backup, run)

    # The beginning

    def _begin(self, backup: Obj) -> None:
        meta = backup["metadata"]
        others = (one for one in self.registry.iterate(BACKUPS, NAMESPACE) if one["metadata"]["uid"] != meta["uid"])
        if any((one.get("status") or {}).get("phase") in _RUNNING for one in others):
            # One at a time.
            self._server.write(BACKUPS, backup, {"phase": "New"})
            self.queue.add_after(f"{NAMESPACE}/{meta['name']}", POLL)
            return
        backup = self._with_defaults(backup)
        problems = self._problems(backup["spec"])
        if problems:
            self._server.write(BACKUPS, backup, {"phase": "FailedValidation", "validationErrors": problems})
            return
        now = self.clock.now()
        expires = now + timedelta(seconds=seconds(backup["spec"].get("ttl"), _TTL))
        run = self._runs[meta["uid"]] = _Run(collect(self._server.objects, backup["spec"]), self.clock.monotonic())
        status = {
            "version": 1,
            "formatVersion": "1.1.0",
            "phase": "InProgress",
            "startTimestamp": rfc3339(now),
            "expiration": rfc3339(expires),
            "progress": {"totalItems": len(run.items)},
        }
        self._server.write(BACKUPS, backup, status)
        if backup["spec"].get("snapshotVolumes") is not False:
            self._snapshot_claims(backup, run)

    def _with_defaults(self, backup: Obj) -> Obj:
        spec = {**_DEFAULTS, "hooks": {}, "metadata": {}, **backup["spec"]}
        spec.setdefault("snapshotMoveData", False)
        spec.setdefault("defaultVolumesToFsBackup", False)
        spec["storageLocation"] = spec.get("storageLocation") or self._server.default_location()
        meta = backup["metadata"]
        labels = {**(meta.get("labels") or {}), LOCATION_NAME: spec["storageLocation"]}
        marks = {
            "velero.io/resource-timeout": "10m0s",
            "velero.io/source-cluster-k8s-gitversion": "v1.36.2",
            "velero.io/source-cluster-k8s-major-version": "1",
            "velero.io/source-cluster-k8s-minor-version": "36",
        }
        annotations = {**marks, **(meta.get("annotations") or {})}
        changed = {**backup, "metadata": {**meta, "labels": labels, "annotations": annotations}, "spec": spec}
        return self._server.update(BACKUPS, changed)

    def _problems(self, spec: Obj) -> list[str]:
        name = spec["storageLocation"]
        location = self._server.location(name)
        found: list[str] = []
        if location is None:
            why = f'backupstoragelocations.velero.io "{name}" not found'
            found.append(
                f"an existing backup storage location was not specified at backup creation time and the default {name} "
                "was not found. Please address this issue (see `velero backup-location -h` for options) and create a "
                f"new backup. Error: {why}"
            )
        elif with_spec(location)["spec"].get("accessMode") == "ReadOnly":
            mode = "is currently in read-only mode"
            found.append(f"backup can't be created because backup storage location {name} {mode}")
        elif (location.get("status") or {}).get("phase") == "Unavailable":
            found.append(f"backup can't be created because BackupStorageLocation {name} is in Unavailable status.")
        found += problems_of(spec)
        if spec.get("labelSelector") is not None and spec.get("orLabelSelectors"):
            found.append(_BOTH_SELECTORS)
        if mixes_filters(spec):
            found.append(_MIXED)
        return found

    def _snapshot_claims(self, backup: Obj, run: _Run) -> None:
        for claim in volumes.claims_to_snapshot(self._server, run.items):
            run.attempted += 1
            try:
                run.waiting.append(volumes.take(self._server, backup["metadata"]["name"], claim))
            except (volumes.SnapshotError, ApiError) as error:
                meta = claim["metadata"]
                run.errors.append(
                    f"error backing up persistentvolumeclaims/{meta['namespace']}/{meta['name']}: {error}"
                )

    # Under way

    def _go_on(self, backup: Obj, run: _Run) -> None:
        key = f"{NAMESPACE}/{backup['metadata']['name']}"
        now = self.clock.monotonic()
        status = dict(backup["status"])
        if status["phase"].startswith("Finalizing"):
            if now - run.finalizing < FINALIZE - 0.001:
                self.queue.add_after(key, FINALIZE - (now - run.finalizing))
            else:
                self._finish(backup, run)
            return
        done = min(len(run.items), int((now - run.started) * ITEMS_A_SECOND))
        status["progress"] = {"totalItems": len(run.items), "itemsBackedUp": done}
        if done < len(run.items):
            self._server.write(BACKUPS, backup, status)
            self.queue.add_after(key, 1.0)
            return
        self._look_at_snapshots(backup, run)
        failed = "PartiallyFailed" if run.errors else ""
        status |= {
            "csiVolumeSnapshotsAttempted": run.attempted,
            "csiVolumeSnapshotsCompleted": len(run.kept),
            "backupItemOperationsAttempted": run.attempted,
            "backupItemOperationsCompleted": len(run.kept),
            "backupItemOperationsFailed": run.attempted - len(run.kept) - len(run.waiting),
            "errors": len(run.errors),
        }
        if run.waiting:
            status["phase"] = "WaitingForPluginOperations" + failed
            self.queue.add_after(key, POLL)
        else:
            status["phase"] = "Finalizing" + failed
            run.finalizing = now
            self.queue.add_after(key, FINALIZE)
        self._server.write(BACKUPS, backup, status)

    def _look_at_snapshots(self, backup: Obj, run: _Run) -> None:
        """Keeps those that are ready and gives up those that have not become so within the time allowed."""
        timeout = seconds(backup["spec"].get("csiSnapshotTimeout"), _SNAPSHOT_TIMEOUT)
        overdue = self.clock.monotonic() - run.started >= timeout - 0.001
        waiting = []
        for held in run.waiting:
            meta = held["metadata"]
            snapshot = self.registry.find(SNAPSHOTS, meta["namespace"], meta["name"])
            status = (snapshot or {}).get("status") or {}
            if snapshot is not None and status.get("readyToUse"):
                run.kept.append(volumes.keep(self._server, snapshot))
            elif snapshot is None or overdue:
                why = (status.get("error") or {}).get("message") or "it was deleted"
                claim = held["spec"]["source"]["persistentVolumeClaimName"]
                where = f"persistentvolumeclaims/{meta['namespace']}/{claim}"
                run.errors.append(f"error backing up {where}: volumesnapshot {meta['name']} is not ready: {why}")
                if snapshot is not None:
                    self.registry.delete(SNAPSHOTS, meta["namespace"], meta["name"])
            else:
                waiting.append(held)
        run.waiting = waiting

    # The end

    def _finish(self, backup: Obj, run: _Run) -> None:
        location = backup["spec"]["storageLocation"]
        if self._server.faults.backup_storage_away(location):
            # What it took is of no use without the manifests.
            for record in run.kept:
                self._server.disks.delete_snapshot(record.handle)
            why = f"error uploading backup to location {location}: RequestError: send request failed"
            self._end(backup, "Failed", failureReason=why)
            return
        ended = self._end(backup, "PartiallyFailed" if run.errors else "Completed")
        self._server.storage.put(
            StoredBackup(ended, location, run.items, tuple(run.kept), tuple(run.errors)),
        )

    def _end(self, backup: Obj, phase: str, **more: str) -> Obj:
        self._runs.pop(backup["metadata"]["uid"], None)
        status = {**backup["status"], "phase": phase, "completionTimestamp": self.cluster.stamp(), **more}
        return self._server.write(BACKUPS, backup, status)
