"""What people decide: approval, rejection, and what happens where nobody does."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.ledger.base import HolderGone, LedgerBase, invalid_state, locked_row, who
from opsapi.adapters.sql.ledger.beginning import judge
from opsapi.adapters.sql.operation_rows import OPERATION, load_row
from opsapi.adapters.sql.tables import operation_targets, operations
from opsapi.kit.caller import Call, System
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.model import Failure, Operation, State
from opsapi.policy.admission import Admission
from opsapi.webhooks.model import EventType

EXPIRED = Failure(code="APPROVAL_EXPIRED", message="Nobody decided the request in time")
_AT_ONCE = 100


class Decisions(LedgerBase):
    async def approve(
        self, operation_id: str, by: Call | System, *, admission: Admission, until: datetime
    ) -> Operation:
        try:
            approved = await self._approve(operation_id, by, admission, until)
        except HolderGone:
            raise DependencyUnavailable("operations", "another operation just ended here", retry_after=1) from None
        return self._changed(by, approved)

    async def _approve(self, operation_id: str, by: Call | System, admission: Admission, until: datetime) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            row = await _waiting(connection, operation_id, now)
            await self._lock(connection, operation_id, row["locks"] or (), now)
            await judge(self._db.is_sqlite, connection, admission, now, operation_id)
            values = {
                "state": State.QUEUED,
                "approved_by": who(by),
                "approved_at": now,
                "deadline_at": until,
                "updated_at": now,
            }
            statement = sa.update(operations).where(OPERATION.id == operation_id).values(values).returning(operations)
            approved = await load_row(connection, (await connection.execute(statement)).mappings().one())
            await connection.execute(
                sa.update(operation_targets)
                .where(operation_targets.c.operation_id == operation_id)
                .values(at=admission.ask.at)
            )
            await self._audited(connection, by, approved, now)
            await self._tell(connection, EventType.APPROVAL_DECIDED, approved, now)
        return approved

    async def reject(self, operation_id: str, by: Call | System, failure: Failure) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            row = await _waiting(connection, operation_id, now)
            state = State.FAILED if failure.code == "STALE_PLAN" else State.CANCELLED
            rejected = await self._end(connection, row, state, now, error=failure)
            await self._audited(connection, by, rejected, now)
            await self._tell(connection, EventType.APPROVAL_DECIDED, rejected, now)
        return self._changed(by, rejected)

    async def expire(self, now: datetime) -> int:
        expired = (
            sa.select(operations)
            .where(OPERATION.state == State.PENDING_APPROVAL, OPERATION.approval_expires_at <= now)
            .limit(_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        async with self._db.write() as connection:
            rows = (await connection.execute(expired)).mappings().all()
            for row in rows:
                ended = await self._end(connection, row, State.CANCELLED, now, error=EXPIRED)
                await self._tell(connection, EventType.APPROVAL_DECIDED, ended, now)
        for row in rows:
            self._signals.notify(row["id"])
        return len(rows)


async def _waiting(connection: AsyncConnection, operation_id: str, now: datetime) -> sa.RowMapping:
    row = await locked_row(connection, operation_id)
    if row["state"] != State.PENDING_APPROVAL:
        raise invalid_state(row, "The operation waits for no decision", State.PENDING_APPROVAL)
    if row["approval_expires_at"] is not None and row["approval_expires_at"] <= now:
        raise invalid_state(row, "The request has expired: nobody decided it in time", State.PENDING_APPROVAL)
    return row
