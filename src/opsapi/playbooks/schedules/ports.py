"""Where schedules are kept."""

from datetime import datetime
from typing import Protocol

import msgspec

from opsapi.kit.caller import Call
from opsapi.playbooks.schedules.model import Schedule


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """How a tick went: what it began, or why nothing."""

    at: datetime
    next_at: datetime
    operation_id: str | None = None
    error: dict[str, str] | None = None


class ScheduleStore(Protocol):
    """Every write of a call carries its audit entry in the same transaction. All may raise DependencyUnavailable."""

    async def add(self, schedule: Schedule, by: Call) -> None: ...

    async def of_workspace(self, workspace_id: str) -> list[Schedule]: ...

    async def get(self, workspace_id: str, schedule_id: str) -> Schedule | None: ...

    async def replace(self, schedule: Schedule, by: Call) -> bool:
        """False where it is gone."""
        ...

    async def remove(self, workspace_id: str, schedule_id: str, by: Call) -> bool: ...

    async def due(self, now: datetime, limit: int = 50) -> list[Schedule]:
        """Enabled ones whose tick has come, the longest due first."""
        ...

    async def ticked(self, schedule: Schedule, tick: Tick) -> bool:
        """Moves on to the next tick, where nobody has moved it since it was read; else false."""
        ...
