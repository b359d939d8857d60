"""Begins what is due. The operation comes first and the tick moves on after it: a replica that dies in between leaves
a tick that is begun again under the same key, and that is the same operation."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from opsapi.kit.caller import Call, Caller
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable, OpsError
from opsapi.kit.ids import new_id
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation
from opsapi.playbooks.schedules.model import GRACE, Schedule, next_tick, tick_key
from opsapi.playbooks.schedules.ports import ScheduleStore, Tick

POLL_SECONDS = 5.0
CallerOf = Callable[[str], Awaitable[Caller | None]]
"""An account as it stands now; None where it is gone or revoked."""
Begin = Callable[[Call, Schedule], Awaitable[Operation]]
"""Proposes and begins the scheduled operation. Raises OpsError for whatever a caller would be told."""
_log = logging.getLogger(__name__)


class ScheduleFiring:
    def __init__(self, store: ScheduleStore, caller_of: CallerOf, begin: Begin, clock: Clock) -> None:
        self._store = store
        self._caller_of = caller_of
        self._begin = begin
        self._clock = clock

    async def run(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.fire()
            except DependencyUnavailable as error:
                _log.warning("schedules wait: %s", error.message)
            except Exception:
                _log.exception("schedules could not be fired")

    async def fire(self) -> list[Tick]:
        """One look; what came of each tick that was due."""
        now = self._clock.now()
        return [await self._tick(schedule, now) for schedule in await self._store.due(now)]

    async def _tick(self, schedule: Schedule, now: datetime) -> Tick:
        following = next_tick(schedule.cron, schedule.timezone, now)
        operation_id, error = None, None
        if now - schedule.next_at > GRACE:
            error = {"code": "MISSED", "message": "Nobody served when it was due"}
        else:
            try:
                operation_id = await self._started(schedule)
            except DependencyUnavailable:
                raise
            except OpsError as refused:
                error = {"code": refused.code, "message": refused.message}
        tick = Tick(at=schedule.next_at, next_at=following, operation_id=operation_id, error=error)
        await self._store.ticked(schedule, tick)
        return tick

    async def _started(self, schedule: Schedule) -> str:
        caller = await self._caller_of(schedule.created_by)
        if caller is None or not caller.grants.allows(Permission.WORKSPACE_ADMIN, schedule.workspace_id):
            raise AccountRevoked
        now = self._clock
        call = Call(
            caller=caller,
            request_id=new_id("req"),
            endpoint="schedule",
            method="SCHEDULE",
            path=f"/internal/v1/workspaces/{schedule.workspace_id}/schedules/{schedule.id}",
            received_at=now.now(),
            started=now.monotonic(),
            idempotency_key=tick_key(schedule),
        )
        return (await self._begin(call, schedule)).id


class AccountRevoked(OpsError):
    code = "ACCOUNT_REVOKED"
    status = 403
    summary = "The account that made the schedule may not do this any more."

    def __init__(self) -> None:
        super().__init__("The account that made the schedule is revoked or lacks workspace:admin by now")
