"""What incidents needs of the outside: one durable store. All moments are UTC; every method is one transaction."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from opsapi.incidents.model import Alert, Change, Entry, Incident, Scene, Severity, State
from opsapi.kit.caller import Call, System

Decide = Callable[[Scene], Sequence[Change]]
"""What a report changes; pure, since a store may ask it again."""
Transition = Callable[[Incident], Change]
"""What an action changes. Raises InvalidState."""
Merge = Callable[[Incident, Incident], Sequence[Change]]
"""What becomes of source and target. Raises InvalidState."""


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is to be shown: what its keys lead to, and open incidents of the type `type` about one of the
    applications."""

    workspace_id: str
    keys: tuple[str, ...]
    type: str
    applications: tuple[str, ...]


class IncidentFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`workspaces` None means all; `before` continues a list after (rank, opened_at, id) of its last entry."""

    workspaces: frozenset[str] | None
    states: frozenset[State] | None = None
    severities: frozenset[Severity] | None = None
    application_id: str | None = None
    type: str | None = None
    before: tuple[int, datetime, str] | None = None
    limit: int = 50


class Linked(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that works on an incident. `settled_at`: when the timeline was told how it ended."""

    incident_id: str
    operation_id: str
    linked_at: datetime
    settled_at: datetime | None = None


class IncidentStore(Protocol):
    """What is written goes with its audit entry and its events into one transaction, which no other change of the same
    workspace's incidents shares; on a call, `call.audit.committed` is set. All may raise DependencyUnavailable."""

    async def report(
        self, sought: Sought, decide: Decide, by: Call | System, *, opened_status: int = 200
    ) -> list[Incident]:
        """Shows `decide` the scene, and writes what it answers; the incidents as they are then. `opened_status` is
        what a call is audited with that opened one."""
        ...

    async def change(self, incident_id: str, decide: Transition, by: Call | System) -> Incident:
        """Raises IncidentNotFound, and what `decide` raises; then nothing is written. Nothing either where it links an
        operation that is linked, or settles one that is settled: somebody was faster to tell."""
        ...

    async def merge(
        self,
        source_id: str,
        target_id: str,
        decide: Callable[[Incident, Incident], Sequence[Change]],
        by: Call | System,
    ) -> Incident:
        """The source as it is then. Raises IncidentNotFound, also where they are of two workspaces."""
        ...

    async def get(self, incident_id: str) -> Incident | None: ...

    async def find(self, wanted: IncidentFilter) -> list[Incident]:
        """What is open first, then the worst, then the newest."""
        ...

    async def timeline(self, incident_id: str, limit: int) -> list[Entry]:
        """The newest ones, in the order in which they happened."""
        ...

    async def alerts(self, incident_id: str, limit: int) -> list[Alert]:
        """Firing ones first, then the worst."""
        ...

    async def operations(self, incident_id: str) -> list[Linked]:
        """The newest first."""
        ...

    async def linked(self, operation_id: str) -> Linked | None: ...

    async def unsettled(self, limit: int) -> list[Linked]:
        """Operations whose end the timeline does not tell of yet, the oldest first."""
        ...

    async def overdue(self, before: datetime, limit: int) -> list[Incident]:
        """High and critical ones that fire since before, unacknowledged."""
        ...

    async def purge(self, before: datetime, limit: int = 500) -> int:
        """Deletes what was closed before; how many. Call again while it deletes `limit`."""
        ...
