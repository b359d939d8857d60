"""What backups need: records in the database, and a store of bytes for manifests."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from opsapi.backups.model import Backup, Ended, Status
from opsapi.kit.caller import System


class BackupFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`workspaces` None means all; `before` continues a list after (created_at, id) of its last entry. Without `status`
    what is deleted is left out."""

    workspaces: frozenset[str] | None
    application_id: str | None = None
    status: Status | None = None
    before: tuple[datetime, str] | None = None
    limit: int = 50


class BackupRecords(Protocol):
    """One row a backup. One that is in progress and whose operation has ended is failed, whoever reads it: an operation
    that was cancelled or died writes no more. All may raise DependencyUnavailable."""

    async def open(self, backup: Backup) -> None:
        """Repeating it changes nothing."""
        ...

    async def close(self, backup_id: str, ended: Ended) -> None:
        """The end of its making. What is deleted stays deleted."""
        ...

    async def note_verification(self, backup_id: str, at: datetime, damage: Sequence[str]) -> None: ...

    async def note_erased(
        self, backup_id: str, at: datetime, *, status: Status = Status.DELETED, by: System | None = None
    ) -> None:
        """Nothing of it is left; one that failed may go on being shown as failed. What the service itself does (`by`)
        is audited; an operation audits itself."""
        ...

    async def get(self, backup_id: str) -> Backup | None: ...

    async def find(self, wanted: BackupFilter) -> list[Backup]:
        """The newest first."""
        ...

    async def last_size(self, workspace_id: str, application_id: str) -> int | None:
        """Bytes of the manifests of its last complete backup."""
        ...

    async def due(self, now: datetime, limit: int) -> list[Backup]:
        """What has expired, and what failed and may have left something behind; the longest due first."""
        ...

    async def purge(self, before: datetime) -> int:
        """Forgets what was erased before."""
        ...


class Stored(msgspec.Struct, frozen=True, order=True):
    path: str
    size: int


class Missing(Exception):
    """Nothing is stored under that path."""


class ObjectStore(Protocol):
    """Bytes by path (`a/b/c.json`) in a folder or bucket. What was put is whole or not there. All raise
    DependencyUnavailable where the store cannot be reached or refuses."""

    async def put(self, path: str, data: bytes) -> None: ...

    async def get(self, path: str) -> bytes:
        """Raises Missing."""
        ...

    async def list(self, prefix: str) -> Sequence[Stored]:
        """Everything below `prefix`, in the order of paths."""
        ...

    async def delete(self, path: str) -> None:
        """Also where nothing is there."""
        ...
