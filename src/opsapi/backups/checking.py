"""Whether a backup still is what was written: asked before every restore, and on its own."""

from opsapi.backups.archive import Archive, Checked
from opsapi.backups.model import Backup, Engine, Status
from opsapi.backups.snapshots import Snapshots
from opsapi.backups.velero_client import VeleroClient

_NO_STORE = "no store is configured any more (backups.store.url), so nothing of it can be read"


class Checker:
    """Changes nothing. Raises DependencyUnavailable where store or cluster are away: then nothing is known."""

    def __init__(self, archive: Archive | None, snapshots: Snapshots, velero: VeleroClient) -> None:
        self.archive = archive
        self._snapshots = snapshots
        self._velero = velero

    async def damage(self, backup: Backup, *, volumes: bool = True) -> list[str]:
        """What is wrong with it; `volumes`: their snapshots are looked at too."""
        if backup.engine is Engine.VELERO:
            return await self._of_velero(backup, volumes)
        checked = await self.manifests(backup)
        return checked.damage + (await self._of_snapshots(backup) if volumes else [])

    async def manifests(self, backup: Backup) -> Checked:
        if self.archive is None:
            return Checked(index=None, contents={}, damage=[_NO_STORE])
        return await self.archive.check(backup)

    async def _of_snapshots(self, backup: Backup) -> list[str]:
        found = []
        for volume in backup.volumes:
            if volume.captured and volume.snapshot is not None:
                problem = await self._snapshots.state(backup, volume.snapshot)
                if problem is not None:
                    found.append(f"the snapshot of volume {volume.claim} {problem}")
        return found

    async def _of_velero(self, backup: Backup, volumes: bool) -> list[str]:
        seen = await self._velero.look(backup)
        if not seen.status.restorable:
            return [seen.message]
        if seen.status is Status.PARTIALLY_FAILED and backup.status is Status.COMPLETED:
            return [f"Velero now says: {seen.message}"]
        if volumes and seen.captured < (backup.volumes_captured or 0):
            return [f"Velero has {seen.captured} of the {backup.volumes_captured} volumes that it had"]
        return []
