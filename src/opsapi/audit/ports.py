"""What the audit needs: a store, a place outside the database for checkpoints. All may raise DependencyUnavailable."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Protocol

import msgspec

from opsapi.audit.chain import ChainedEntry, ChainHead, Checkpoint, Link
from opsapi.audit.model import AuditEntry, Outcome


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """All that are given must hold; `workspaces` None means all, also entries of none. `since` is inclusive,
    `until` is not."""

    workspaces: frozenset[str] | None
    account_id: str | None = None
    workspace_id: str | None = None
    endpoint: str | None = None
    operation_id: str | None = None
    request_id: str | None = None
    status: int | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditPosition(msgspec.Struct, frozen=True):
    """After which entry a page begins."""

    at: Annotated[datetime, msgspec.Meta(tz=True)]
    id: str


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """`token` fences: it is higher for every later holder."""

    name: str
    holder: str
    token: int
    expires_at: datetime


class AuditStore(Protocol):
    async def insert(self, entries: Sequence[AuditEntry]) -> None:
        """One transaction. An entry that is there already, by its id, stays as it is: a retry cannot double it.

        Raises EntryRejected where the database refuses an entry for what it holds.
        """
        ...

    async def page(self, wanted: AuditFilter, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        """The newest first."""
        ...


class EntryRejected(Exception):
    """The database is there, but takes no such entry: trying again will not help."""


class ChainStore(Protocol):
    async def acquire(self, name: str, holder: str, ttl: timedelta) -> Lease | None:
        """Takes or renews the lease; None while another holds it."""
        ...

    async def release(self, lease: Lease) -> None: ...

    async def append(
        self, lease: Lease, link: Callable[[ChainHead, Sequence[AuditEntry]], list[Link]], limit: int
    ) -> tuple[ChainHead, int]:
        """In one transaction: locks the head, links up to `limit` entries that are not linked yet, the oldest first.

        Returns the head and how many were linked. Raises LeaseLost when `lease` is not the current one any more.
        """
        ...

    async def head(self) -> ChainHead: ...

    async def chained(self, after: int, limit: int) -> list[ChainedEntry]:
        """By `seq`, from the first behind `after`."""
        ...

    async def unchained(self, before: datetime) -> int:
        """How many entries older than that wait for their link."""
        ...

    async def add_checkpoint(self, mark: Checkpoint) -> None: ...

    async def checkpoints(self) -> list[Checkpoint]: ...

    async def last_checkpoint(self) -> Checkpoint | None: ...


class LeaseLost(Exception):
    """Another holder took the lease over."""


class CheckpointSink(Protocol):
    async def export(self, mark: Checkpoint) -> None:
        """Returns once it is safe outside the database. Raises OSError."""
        ...
