"""Erases what has expired, and what failed backups left behind; Velero erases its own by their ttl."""

import asyncio
import logging
from datetime import timedelta

from opsapi.backups.erasing import Eraser
from opsapi.backups.model import Backup, Ended, Engine, Status
from opsapi.backups.planning import LOCK
from opsapi.backups.settings import BackupSettings
from opsapi.backups.velero_client import VeleroClient
from opsapi.kit.caller import System
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import lock_key, workspace_lock
from opsapi.operations.ports import Ledger
from opsapi.policy.model import EVERYWHERE
from opsapi.workspaces.model import Mode
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import WriteRefused

_BY = System(origin="backups", action="expire")
_AT_ONCE = 100
_REMEMBERED = timedelta(days=30)
"""How long a record outlives what it was of."""
_log = logging.getLogger(__name__)


class Retention:
    """Every replica may run it: all that it does may be repeated."""

    def __init__(
        self,
        clusters: Clusters,
        eraser: Eraser,
        velero: VeleroClient,
        ledger: Ledger,
        clock: Clock,
        settings: BackupSettings,
    ) -> None:
        self._clusters = clusters
        self._eraser = eraser
        self._velero = velero
        self._ledger = ledger
        self._clock = clock
        self._settings = settings

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.purge_seconds)
            try:
                await self.sweep()
            except DependencyUnavailable as error:
                _log.warning("expired backups wait to be erased: %s", error.message)

    async def sweep(self) -> int:
        """How many backups were erased. Raises DependencyUnavailable where the database is away; what cannot be erased
        now is left for the next time."""
        records = self._eraser.records
        now = self._clock.now()
        paused = {pause.scope for pause in await self._ledger.pauses()}
        erased = 0
        for backup in await records.due(now, _AT_ONCE):
            if paused & {EVERYWHERE, backup.workspace_id} or await self._in_use(backup):
                continue
            try:
                gone = await self._erase(backup)
            except (DependencyUnavailable, WriteRefused, StepFailed) as error:
                _log.warning("backup %s cannot be erased now: %s", backup.id, error)
                continue
            if gone:
                await self._note(backup)
                erased += 1
        await records.purge(now - _REMEMBERED)
        return erased

    async def _in_use(self, backup: Backup) -> bool:
        locks = (lock_key(backup.workspace_id, backup.id), workspace_lock(backup.workspace_id, LOCK))
        holders = [await self._ledger.holder(lock) for lock in locks]
        return any(holder is not None for holder in holders)

    async def _erase(self, backup: Backup) -> bool:
        """False where it is not ours to erase yet. The cluster is only written to where it may be."""
        cluster = self._clusters.find(backup.workspace_id)
        if backup.engine is Engine.VELERO:
            if backup.status is Status.FAILED:
                return True
            seen = await self._velero.look(backup) if cluster is not None else None
            return seen is not None and seen.status is Status.FAILED
        with_snapshots = backup.include_volumes and any(one.snapshot is not None for one in backup.volumes)
        left_some = backup.include_volumes and backup.status is Status.FAILED
        if with_snapshots or left_some:
            if cluster is None or cluster.workspace.mode is not Mode.ACT:
                return False
            await self._eraser.erase_manifests(backup)
            await self._eraser.erase_snapshots(backup)
            return True
        await self._eraser.erase_manifests(backup)
        return True

    async def _note(self, backup: Backup) -> None:
        """A failed one goes on being shown, with its failure, which its operation's own record may not outlive."""
        records, now = self._eraser.records, self._clock.now()
        if backup.status is not Status.FAILED:
            await records.note_erased(backup.id, now, by=_BY)
            return
        ended = Ended(status=Status.FAILED, finished_at=backup.finished_at or now, error=backup.error)
        await records.close(backup.id, ended)
        await records.note_erased(backup.id, now, status=Status.FAILED, by=_BY)
