"""Makes one application's backup. Every effect has a name that follows from the operation, and is looked for before it
is tried again, so that any process may go on where another died."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from opsapi.backups.archive import Archive, Written
from opsapi.backups.collecting import Collected, Collector
from opsapi.backups.kinds import CLAIMS, SECRETS
from opsapi.backups.model import (
    Backup,
    BackupOrder,
    Ended,
    Engine,
    Held,
    LeftOut,
    Status,
    Target,
    Volume,
    location_of,
    opened,
)
from opsapi.backups.ports import BackupRecords
from opsapi.backups.settings import BackupSettings
from opsapi.backups.snapshots import Notes, Snapshots, size_of
from opsapi.backups.velero import selectors_of, selects
from opsapi.backups.velero_client import VeleroClient
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Operation
from opsapi.operations.work import StepWork
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import Objects, TargetGone, WriteConflict, WriteRefused

_BY_LABELS = "Velero selects by labels, and it bears neither those of the pod selector nor the workload's own"
_UNKNOWN_LABELS = "whether Velero selects it depends on its labels, which are not read"


class BackupMaker:
    """`archive` is None where no store is configured: then there is only Velero."""

    def __init__(
        self,
        clusters: Clusters,
        objects: Objects,
        records: BackupRecords,
        archive: Archive | None,
        settings: BackupSettings,
    ) -> None:
        self._clusters = clusters
        self.records = records
        self.archive = archive
        self.settings = settings
        self.snapshots = Snapshots(objects, settings)
        self.velero = VeleroClient(objects, settings)
        self._collectors = {
            Engine.MANIFESTS: Collector(objects, secrets=settings.secrets),
            Engine.VELERO: Collector(objects, secrets=False),
        }

    async def collect(self, target: Target, engine: Engine) -> Collected:
        """What belongs to the application and the engine can take. Raises as Collector.collect does."""
        found = await self._collectors[engine].collect(target)
        return found if engine is Engine.MANIFESTS else _as_velero_selects(found, secrets=self.settings.secrets)

    async def open(self, order: BackupOrder, backup_id: str, operation: Operation) -> Backup:
        """Records that it is being made."""
        location = location_of(order.engine, backup_id, order.target.workspace_id, self.settings.velero_namespace)
        backup = opened(order, backup_id, operation, location)
        await self.records.open(backup)
        return backup

    async def take_volumes(self, work: StepWork, backup: Backup, notes: Notes) -> list[Volume]:
        """Raises StepFailed where the application is gone."""
        collected = await self._collected(backup)
        return await self.snapshots.take(work, backup, collected.claims, notes)

    async def write(self, work: StepWork, backup: Backup, volumes: Sequence[Volume]) -> tuple[Written, bool]:
        """Manifests and index, and whether they had been written before."""
        archive = self.require_archive()
        found = await archive.found(backup)
        if found is not None and found.index.operation_id == backup.operation_id:
            return found, True
        collected = await self._collected(backup)
        cluster = self._clusters.find(backup.workspace_id)
        written = await archive.write(
            backup,
            collected.cleaned(),
            volumes=list(volumes),
            left_out=collected.left_out,
            cluster_version=cluster.state().version if cluster is not None else None,
            at=work.clock.now(),
        )
        return written, False

    async def conclude(self, work: StepWork, order: BackupOrder, backup: Backup, checksum: str) -> Ended:
        """Reads the store again, and closes the record. Raises StepFailed where it does not hold what was written."""
        checked = await self.require_archive().check(msgspec.structs.replace(backup, checksum=checksum))
        if checked.index is None or checked.damage:
            raise StepFailed("BACKUP_DAMAGED", f"The store does not hold what was written: {checked.damage[0]}")
        index = checked.index
        missed = any(one.missed for one in index.left_out)
        lost = any(not volume.captured for volume in index.volumes)
        now = work.clock.now()
        ended = Ended(
            status=Status.PARTIALLY_FAILED if missed or lost else Status.COMPLETED,
            finished_at=now,
            expires_at=_expiry(order, backup),
            checksum=checksum,
            size_bytes=checked.size,
            volumes_expected=len(index.volumes) if backup.include_volumes else None,
            volumes_captured=sum(v.captured for v in index.volumes) if backup.include_volumes else None,
            volumes=index.volumes,
            objects=sorted(Held(one.kind, one.name) for one in index.files),
            left_out=index.left_out,
        )
        await self.records.close(backup.id, ended)
        await self.records.note_verification(backup.id, now, ())
        return ended

    async def begin_velero(self, order: BackupOrder, backup: Backup) -> tuple[str, bool]:
        """(uid, whether it was there already) of the Backup object. Raises StepFailed."""
        collected = await self._collected(backup)
        selectors = selectors_of(collected.workload)
        return await self.velero.create_backup(backup, selectors, order.ttl_seconds)

    async def conclude_velero(self, work: StepWork, order: BackupOrder, backup: Backup, uid: str) -> Ended:
        """Asks Velero what it has, and closes the record. Raises StepFailed where the backup failed or is gone."""
        seen = await self.velero.look(msgspec.structs.replace(backup, velero_uid=uid))
        if not seen.status.restorable:
            raise StepFailed("VELERO_FAILED", seen.message)
        collected = await self._collected(backup)
        expected = len(collected.claims) if backup.include_volumes else None
        short = expected is not None and seen.captured < expected
        now = work.clock.now()
        ended = Ended(
            status=Status.PARTIALLY_FAILED if short else seen.status,
            finished_at=now,
            expires_at=_expiry(order, backup),
            velero_uid=uid,
            volumes_expected=expected,
            volumes_captured=None if expected is None else min(seen.captured, expected),
            volumes=_counted(collected, seen.captured, expected),
            objects=collected.held,
            left_out=collected.left_out,
        )
        await self.records.close(backup.id, ended)
        await self.records.note_verification(backup.id, now, ())
        return ended

    def require_archive(self) -> Archive:
        if self.archive is None:
            raise StepFailed("NO_BACKUP_STORE", "No store is configured (backups.store.url)")
        return self.archive

    async def _collected(self, backup: Backup) -> Collected:
        try:
            return await self.collect(backup.target, backup.engine)
        except (TargetGone, WriteConflict) as error:
            raise StepFailed("TARGET_GONE", f"{backup.target.place} was deleted or replaced meanwhile") from error
        except WriteRefused as error:
            raise StepFailed("READ_REFUSED", f"The cluster refused: {error}", reason=error.reason) from error


def _as_velero_selects(found: Collected, *, secrets: bool) -> Collected:
    """Claims come along with the pods, the others by their labels. Of Secrets nothing is read, so nothing is known."""
    selectors = selectors_of(found.workload)
    taken, left = [], []
    for resource, body in found.objects:
        meta = body["metadata"]
        if resource == CLAIMS or selects(selectors, meta.get("labels")):
            taken.append((resource, body))
        else:
            left.append(LeftOut(resource.kind, meta["name"], _BY_LABELS))
    others = [
        msgspec.structs.replace(one, reason=_UNKNOWN_LABELS) if secrets and one.kind == SECRETS.kind else one
        for one in found.left_out
    ]
    return Collected(found.workload, taken, [*left, *others])


def _counted(collected: Collected, captured: int, expected: int | None) -> list[Volume]:
    """Velero counts volumes without naming them: where it has all, each is captured, else none can be vouched for."""
    if expected is None:
        return []
    whole = captured >= expected
    reason = None if whole else f"Velero says that it has {captured} of {expected} volumes, not which"
    return [
        Volume(claim=claim["metadata"]["name"], size=size_of(claim), captured=whole, reason=reason)
        for claim in collected.claims
    ]


def _expiry(order: BackupOrder, backup: Backup) -> datetime:
    return backup.created_at + timedelta(seconds=order.ttl_seconds)
