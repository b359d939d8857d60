"""An object store in memory, whose contents a test can damage, and records of backups in memory."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import asdict, replace

from opsapi.backups.model import Backup, BackupType, Ended, Engine, Status
from opsapi.backups.ports import BackupFilter, Missing, Stored
from opsapi.kit.caller import System
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.model import Failure
from support.acting import NOON


class FakeStore:
    """Implements ObjectStore. `away` makes it unreachable; `puts` names what was written, in order."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.away = False

    async def put(self, path: str, data: bytes) -> None:
        self._answer()
        self.puts.append(path)
        self.held[path] = bytes(data)

    async def get(self, path: str) -> bytes:
        self._answer()
        try:
            return self.held[path]
        except KeyError:
            raise Missing(path) from None

    async def list(self, prefix: str) -> Sequence[Stored]:
        self._answer()
        below = f"{prefix.rstrip('/')}/"
        return sorted(Stored(path, len(data)) for path, data in self.held.items() if path.startswith(below))

    async def delete(self, path: str) -> None:
        self._answer()
        self.held.pop(path, None)

    def flip(self, path: str, at: int = 0) -> None:
        """Turns one bit."""
        data = bytearray(self.held[path])
        data[at] ^= 1
        self.held[path] = bytes(data)

    def _answer(self) -> None:
        if self.away:
            raise DependencyUnavailable("backup_store", "it cannot be reached or refuses")


class FakeRecords:
    """Implements BackupRecords. `ended` maps an operation's id to the failure that it ended with."""

    def __init__(self) -> None:
        self.held: dict[str, Backup] = {}
        self.erased: dict[str, datetime] = {}
        self.ended: dict[str, Failure | None] = {}
        self.audited: list[str] = []

    async def open(self, backup: Backup) -> None:
        self.held.setdefault(backup.id, backup)

    async def close(self, backup_id: str, ended: Ended) -> None:
        if self.held[backup_id].status is not Status.DELETED:
            self.held[backup_id] = replace(self.held[backup_id], **asdict(ended))

    async def note_verification(self, backup_id: str, at: datetime, damage: Sequence[str]) -> None:
        self.held[backup_id] = replace(self.held[backup_id], verified_at=at, damage=list(damage))

    async def note_erased(
        self, backup_id: str, at: datetime, *, status: Status = Status.DELETED, by: System | None = None
    ) -> None:
        if self.held[backup_id].status is Status.DELETED:
            return
        self.held[backup_id] = replace(self.held[backup_id], status=status)
        self.erased[backup_id] = at
        if by is not None:
            self.audited.append(backup_id)

    async def get(self, backup_id: str) -> Backup | None:
        return self._shown(self.held[backup_id]) if backup_id in self.held else None

    async def find(self, wanted: BackupFilter) -> list[Backup]:
        found = [
            one
            for one in sorted(
                map(self._shown, self.held.values()), key=lambda one: (one.created_at, one.id), reverse=True
            )
            if (wanted.workspaces is None or one.workspace_id in wanted.workspaces)
            and wanted.application_id in (None, one.application_id)
            and (one.status is wanted.status if wanted.status is not None else one.status is not Status.DELETED)
            and (wanted.before is None or (one.created_at, one.id) < wanted.before)
        ]
        return found[: wanted.limit]

    async def last_size(self, workspace_id: str, application_id: str) -> int | None:
        wanted = BackupFilter(
            workspaces=frozenset({workspace_id}), application_id=application_id, status=Status.COMPLETED, limit=1000
        )
        return next((one.size_bytes for one in await self.find(wanted) if one.size_bytes is not None), None)

    async def due(self, now: datetime, limit: int) -> list[Backup]:
        shown = sorted(map(self._shown, self.held.values()), key=lambda one: (one.expires_at or one.created_at, one.id))
        return [
            one
            for one in shown
            if (one.status.restorable and one.expires_at is not None and one.expires_at <= now)
            or (one.status is Status.FAILED and one.id not in self.erased)
        ][:limit]

    async def purge(self, before: datetime) -> int:
        gone = [backup_id for backup_id, at in self.erased.items() if at < before]
        for backup_id in gone:
            del self.held[backup_id], self.erased[backup_id]
        return len(gone)

    def _shown(self, backup: Backup) -> Backup:
        if backup.status is Status.IN_PROGRESS and backup.operation_id in self.ended:
            return replace(backup, status=Status.FAILED, error=self.ended[backup.operation_id])
        return backup


def make_backup(backup_id: str = "backup-1", **changes: Any) -> Backup:
    held: dict[str, Any] = {
        "id": backup_id, "workspace_id": "ws-123", "application_id": "app-1", "kind": "Deployment", "namespace": "shop",
        "name": "web", "uid": "uid-web", "engine": Engine.MANIFESTS, "status": Status.IN_PROGRESS,
        "backup_type": BackupType.AUTOMATED, "retention_policy": "standard", "include_volumes": True,
        "reason": "pre_deployment_backup", "requested_by": "sa-agent", "operation_id": "op-1",
        "location": f"ws-123/{backup_id}", "created_at": NOON,
    }  # fmt: skip
    return Backup(**(held | changes))
