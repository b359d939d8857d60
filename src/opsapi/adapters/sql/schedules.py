"""Schedules: a tick moves on once, by the moment that was read."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from opsapi.adapters.sql.audit import insert_call
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import schedules
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.playbooks.schedules.model import Schedule
from opsapi.playbooks.schedules.ports import Tick

_C = schedules.c


class SqlScheduleStore:
    """Implements playbooks' ScheduleStore."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db = database
        self._clock = clock

    async def add(self, schedule: Schedule, by: Call) -> None:
        await self._write(sa.insert(schedules).values(msgspec.structs.asdict(schedule)), schedule.id, by, 201)

    async def replace(self, schedule: Schedule, by: Call) -> bool:
        values = msgspec.structs.asdict(schedule)
        return await self._write(sa.update(schedules).where(_C.id == schedule.id).values(values), schedule.id, by, 200)

    async def remove(self, workspace_id: str, schedule_id: str, by: Call) -> bool:
        statement = sa.delete(schedules).where(_C.workspace_id == workspace_id, _C.id == schedule_id)
        return await self._write(statement, schedule_id, by, 200)

    async def _write(self, statement: sa.UpdateBase, schedule_id: str, by: Call, status: int) -> bool:
        now = self._clock.now()
        async with self._db.write() as connection:
            done = await connection.execute(statement)
            if done.rowcount != 1:
                return False
            resource = f"schedule/{schedule_id}"
            await insert_call(connection, by, status, now=self._clock.monotonic(), at=now, resource=resource)
        by.audit.committed = True
        return True

    async def of_workspace(self, workspace_id: str) -> list[Schedule]:
        return await self._read(sa.select(schedules).where(_C.workspace_id == workspace_id).order_by(_C.id))

    async def get(self, workspace_id: str, schedule_id: str) -> Schedule | None:
        statement = sa.select(schedules).where(_C.workspace_id == workspace_id, _C.id == schedule_id)
        found = await self._read(statement)
        return found[0] if found else None

    async def due(self, now: datetime, limit: int = 50) -> list[Schedule]:
        ready = sa.select(schedules).where(_C.enabled.is_(True), _C.next_at <= now)
        return await self._read(ready.order_by(_C.next_at).limit(limit))

    async def ticked(self, schedule: Schedule, tick: Tick) -> bool:
        values = {
            "next_at": tick.next_at,
            "last_at": tick.at,
            "last_operation_id": tick.operation_id,
            "last_error": tick.error,
        }
        same = sa.and_(_C.id == schedule.id, _C.next_at == schedule.next_at)
        async with self._db.write() as connection:
            return (await connection.execute(sa.update(schedules).where(same).values(values))).rowcount == 1

    async def _read(self, statement: sa.Select[Any]) -> list[Schedule]:
        async with self._db.read() as connection:
            return [Schedule(**row) for row in (await connection.execute(statement)).mappings()]
