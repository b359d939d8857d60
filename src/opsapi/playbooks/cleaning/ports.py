"""What cleaning needs beside the cluster: a place for what it is about to delete."""

from datetime import datetime
from typing import Protocol

from opsapi.workspaces.writing import JsonObject, ObjectKey


class SnapshotUnreadable(Exception):
    """No configured key opens it any more."""


class Snapshots(Protocol):
    """Objects as they were before a cleanup deleted them, sealed. All may raise DependencyUnavailable."""

    @property
    def ready(self) -> bool:
        """False without an encryption key: then nothing can be kept, so nothing is deleted."""
        ...

    async def keep(self, operation_id: str, key: ObjectKey, body: JsonObject) -> None:
        """Durable before it returns; a later one of the same object replaces it."""
        ...

    async def find(self, operation_id: str, key: ObjectKey) -> JsonObject | None:
        """Raises SnapshotUnreadable."""
        ...

    async def purge(self, before: datetime) -> int:
        """Forgets what was taken before; how many."""
        ...
