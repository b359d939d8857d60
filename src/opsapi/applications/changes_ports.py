"""What changes needs: one store. Every method may raise DependencyUnavailable."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from opsapi.applications.changes_model import Change, Snapshot


class ChangeStore(Protocol):
    async def snapshots(self, workspace_id: str) -> dict[str, Snapshot]:
        """By uid, what each object was last seen to be."""
        ...

    async def record(
        self,
        workspace_id: str,
        changes: Sequence[Change],
        seen: Sequence[Snapshot],
        gone: Sequence[str],
        *,
        observed_at: datetime,
    ) -> None:
        """One transaction. A change that another replica has recorded (same uid, field and resourceVersion) is left
        as it is; a snapshot never goes back to an older resourceVersion; `gone` are uids to forget."""
        ...

    async def page(
        self, workspace_id: str, application_id: str, *, before: tuple[datetime, str] | None, limit: int
    ) -> list[Change]:
        """The newest first; `before` is (observed_at, id) of the last one seen."""
        ...

    async def newest(self, limit: int) -> list[Change]:
        """Of all workspaces, the newest first."""
        ...
