"""What a backup's crash tests share: a worker that dies at a named point, another that goes on, and what must hold."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.engine import Database
from opsapi.audit.ports import AuditFilter
from opsapi.backups.model import Backup, Status
from opsapi.backups.views import BackupParams, DeleteParams, VerifyBody
from opsapi.kit.endpoint import NoBody
from opsapi.operations.model import Operation
from support.mortal_backups import MortalStage, carry_out, stage_of

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0
AFTER_THE_LEASE = 60.0


async def run_worker(url: str, path: Path, folder: Path, point: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.mortal_backups", url, str(path), str(folder), point, env=environment
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Scene:
    def __init__(self, url: str, database: Database, folder: Path) -> None:
        self.url = url
        self.database = database
        self.path = folder / "cluster.json"
        self.folder = folder / "store"

    def stage(self) -> MortalStage:
        return stage_of(self.database, self.path, self.folder)

    async def play(self, point: str) -> tuple[Operation, MortalStage]:
        """A worker dies at `point`, another goes on to the end."""
        assert await run_worker(self.url, self.path, self.folder, point) == -signal.SIGKILL
        stage = await carry_out(self.database, self.path, self.folder, "never", later=AFTER_THE_LEASE)
        return await stage.last(), stage

    async def begun(self) -> MortalStage:
        """A backup that waits for its worker."""
        stage = self.stage()
        stage.put_application()
        stage.save()
        await stage.back_up()
        return stage

    async def made(self, *, velero: bool = False) -> tuple[Backup, MortalStage]:
        """A complete backup, and nothing written since."""
        stage = self.stage()
        stage.put_application()
        if velero:
            stage.install_velero()
            stage.save()
            stage.arrange()
        backup = await stage.made()
        assert backup.status is Status.COMPLETED
        stage.objects.writes.clear()
        stage.save()
        stage.clock.advance(1)
        return backup, stage

    async def restoring(self, *, activate: bool = False, velero: bool = False) -> Backup:
        """A restore of a complete backup that waits for its worker."""
        backup, stage = await self.made(velero=velero)
        await stage.restore(backup, target_namespace="elsewhere", activate=activate)
        return backup

    async def deleting(self, *, velero: bool = False) -> Backup:
        """A deletion of a complete backup that waits for its worker."""
        backup, stage = await self.made(velero=velero)
        await stage.reads.delete_backup(stage.call(), DeleteParams(backup_id=backup.id), NoBody())
        return backup

    async def verifying(self) -> tuple[Backup, MortalStage]:
        """A verification of a complete backup that waits for its worker."""
        backup, stage = await self.made()
        await stage.reads.verify_backup(stage.call(), BackupParams(backup_id=backup.id), VerifyBody())
        return backup, stage

    async def ended(self, operation: Operation, *, found: str = "") -> None:
        """Its end is audited once, and that the effect of the step `found` was; no lock is left, no other operation."""
        entries = await SqlAuditStore(self.database).page(
            AuditFilter(workspaces=None, operation_id=operation.id), None, 50
        )
        told = [entry.path for entry in entries if entry.method == "OPERATIONS"]
        effects = [f"{found} effect found"] if found else []
        assert sorted(told) == sorted([*effects, f"{operation.action} {operation.state.value}"])
        ledger = self.stage().ledger
        assert [await ledger.holder(lock) for lock in operation.locks] == [None] * len(operation.locks)
        depth = await ledger.depth()
        assert (depth.queued, depth.running) == (0, 0)


@pytest.fixture
def scene(database_url: str, database: Database, tmp_path: Path) -> Scene:
    return Scene(database_url, database, tmp_path)
