"""Takes what a backup holds away again: by its operation's undo, by DELETE, and when its time is over."""

from datetime import datetime

from opsapi.backups.archive import Archive
from opsapi.backups.model import Backup, Ended, Status
from opsapi.backups.ports import BackupRecords
from opsapi.backups.snapshots import Snapshots
from opsapi.operations.model import Failure
from opsapi.workspaces.writing import WriteRefused


class Eraser:
    """Everything may be repeated. Raises DependencyUnavailable, and WriteRefused where a snapshot may not be read or
    deleted."""

    def __init__(self, records: BackupRecords, archive: Archive | None, snapshots: Snapshots) -> None:
        self.records = records
        self._archive = archive
        self._snapshots = snapshots

    async def erase_manifests(self, backup: Backup) -> bool:
        """Whether there were any. Without a store there are none that could be reached."""
        return self._archive is not None and await self._archive.erase(backup.location) > 0

    async def erase_snapshots(self, backup: Backup) -> bool:
        """Those that bear the backup's mark, and those that its record names."""
        known = {volume.snapshot.name: volume.snapshot for volume in backup.volumes if volume.snapshot is not None}
        try:
            known |= {one.name: one for one in await self._snapshots.find(backup)}
        except WriteRefused:
            if not known:
                return False
        erased = [await self._snapshots.erase(backup, snapshot) for _, snapshot in sorted(known.items())]
        return any(erased)

    async def close_as_failed(self, backup: Backup, at: datetime, failure: Failure | None) -> None:
        """What was undone or never ended is no backup; the record goes on to say why."""
        ended = Ended(status=Status.FAILED, finished_at=backup.finished_at or at, error=failure)
        await self.records.close(backup.id, ended)
