"""A worker that makes and restores backups on a cluster in a file and a store in a folder, and kills itself with
SIGKILL at a named point.

    python -m support.mortal_backups DATABASE_URL FILE FOLDER POINT

POINT as in mortal_worker; `put` is the store's, and so is `store.delete`.
"""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsapi.adapters.objectstore.store import BucketStore
from opsapi.adapters.sql.engine import Database
from opsapi.backups import kinds
from opsapi.backups.settings import BackupStoreSettings
from opsapi.backups.velero import RESTORE_NAME
from opsapi.workspaces.writing import JsonObject
from support.api_objects import FakeObjects
from support.backing_up import BackupStage
from support.mortal_playbooks import LEASE, FiledObjects
from support.mortal_worker import arm

_POLL_SECONDS = 0.005


@dataclass
class MortalStage(BackupStage):
    path: Path = Path()

    def make_objects(self) -> FakeObjects:
        filed = FiledObjects(self.path, self.inventory)
        filed.react = lambda _verb, _target: self._velero(filed)
        return filed

    def install_velero(self) -> None:
        """As a cluster's owner would."""
        spec, status = {"default": True}, {"phase": "Available"}
        meta = {"name": "default", "namespace": "velero"}
        self.objects.put(kinds.VELERO_LOCATIONS, {"metadata": meta, "spec": spec, "status": status})

    def arrange(self, **changes: Any) -> None:
        if self.objects.find(kinds.VELERO_LOCATIONS, "velero", "default") is not None:
            self.objects.unserved.discard("backups.velero.io")
        super().arrange(**changes)

    def _velero(self, objects: FakeObjects) -> None:
        """Velero is done at once, with a snapshot of each volume."""
        for (resource, namespace, _), held in list(objects.held.items()):
            if resource == kinds.VELERO_BACKUPS and "status" not in held:
                status = {"phase": "Completed", "csiVolumeSnapshotsCompleted": 3}
                objects.put(kinds.VELERO_BACKUPS, held | {"status": status})
            elif resource == kinds.VELERO_RESTORES and "status" not in held:
                self._restore(objects, held)
                objects.put(kinds.VELERO_RESTORES, held | {"status": {"phase": "Completed"}})
            elif resource == kinds.VELERO_DELETIONS:
                objects.remove(kinds.VELERO_BACKUPS, namespace, held["spec"]["backupName"])
                objects.remove(kinds.VELERO_DELETIONS, namespace, held["metadata"]["name"])

    def _restore(self, objects: FakeObjects, held: JsonObject) -> None:
        """The workload and its Service, as the rules beside the Restore say."""
        labels = {RESTORE_NAME: held["metadata"]["name"]}
        spec = held["spec"]
        source = spec["includedNamespaces"][0]
        namespace = spec["namespaceMapping"][source]
        for resource in (kinds.STATEFUL_SETS, kinds.SERVICES):
            found = objects.find(resource, source, "db")
            assert found is not None
            if resource == kinds.STATEFUL_SETS and "resourceModifier" in spec:
                found["spec"]["replicas"] = 0
            meta = {"name": "db", "namespace": namespace, "labels": labels}
            objects.put(resource, {"metadata": meta, "spec": found["spec"]})

    async def idle(self) -> None:
        await asyncio.sleep(_POLL_SECONDS)
        await super().idle()

    def save(self) -> None:
        assert isinstance(self.objects, FiledObjects)
        self.objects.save()


def stage_of(database: Database, path: Path, folder: Path) -> MortalStage:
    store = BucketStore(BackupStoreSettings(url=f"file://{folder}"))
    return MortalStage(database, store=store, path=path)


async def carry_out(database: Database, path: Path, folder: Path, point: str, *, later: float = 0) -> MortalStage:
    """Until nothing is claimable; `later` seconds after the operation began."""
    stage = stage_of(database, path, folder)
    stage.clock.advance(later)
    if point != "never":
        when, method, *nth = point.split(":")
        stored: object = stage.store if method in ("put", "store.delete") else stage.objects
        for held in (stage.ledger, stage.records, stored):
            arm(held, method.removeprefix("store."), when, int(nth[0]) if nth else 1)
    await stage.work(lease=LEASE)
    return stage


async def _main(url: str, path: str, folder: str, point: str) -> None:
    await carry_out(Database(url), Path(path), Path(folder), point)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:5]))
