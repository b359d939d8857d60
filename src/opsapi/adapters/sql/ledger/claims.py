"""Who runs an operation: claims with leases, and giving them back."""

from collections.abc import Collection
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger.base import LedgerBase
from opsapi.adapters.sql.operation_rows import OPERATION, load_row, set_step
from opsapi.adapters.sql.tables import operations
from opsapi.kit.clock import Clock
from opsapi.operations.errors import LeaseLost
from opsapi.operations.model import Claim, Failure, State
from opsapi.operations.signals import Signals
from opsapi.webhooks.model import EventType

_LEASES_APART = 4
"""How many times longer one worker's lease may be set than another's, while settings are being changed."""
_SHORT = timedelta(minutes=1)


class Claims(LedgerBase):
    def __init__(self, database: Database, clock: Clock, signals: Signals) -> None:
        super().__init__(database, clock, signals)
        self._expecting = False
        """The last claim found work: the next does not look first without the lock, as an idle poll does."""

    async def claim(self, holder: str, lease: timedelta, runnable: Collection[tuple[str, int]]) -> Claim | None:
        if not runnable:
            return None
        if not self._expecting:
            async with self._db.read() as connection:
                now = await self._now(connection)
                if not await _next(connection, now, lease, runnable, lock=False):
                    return None
        async with self._db.write() as connection:
            now = await self._now(connection)
            operation_id = await _next(connection, now, lease, runnable, lock=True)
            self._expecting = operation_id is not None
            if operation_id is None:
                return None
            return await self._take(connection, operation_id, holder, now, lease)

    async def _take(
        self, connection: AsyncConnection, operation_id: str, holder: str, now: datetime, lease: timedelta
    ) -> Claim:
        statement = (
            sa.update(operations)
            .where(OPERATION.id == operation_id)
            .values(
                state=State.RUNNING,
                lease_holder=holder,
                lease_token=OPERATION.lease_token + 1,
                lease_expires_at=now + lease,
                attempts=OPERATION.attempts + 1,
                not_before=None,
                started_at=sa.func.coalesce(
                    OPERATION.started_at, sa.bindparam("begun", now, OPERATION.started_at.type)
                ),
                updated_at=now,
            )
            .returning(operations)
        )
        row = (await connection.execute(statement)).mappings().one()
        first = row["attempts"] == 1
        if first:
            await self._start(connection, operation_id, 0, self._clock.now())
        operation = await load_row(connection, row)
        if first:
            await self._tell(connection, EventType.OPERATION_STARTED, operation, self._clock.now())
        return Claim(
            operation=operation,
            holder=holder,
            token=row["lease_token"],
            taken_over=operation.attempts > 1,
            step_started=first,
        )

    async def renew(self, claim: Claim, lease: timedelta) -> bool:
        async with self._db.write() as connection:
            now = await self._now(connection)
            held = await self._hold(connection, claim, lease_expires_at=now + lease)
            return held["cancel_requested_at"] is not None

    async def postpone(self, claim: Claim, position: int, failure: Failure, until: datetime) -> None:
        """Kept by the clock that claims go by, which may be another than the caller's."""
        now = self._clock.now()
        async with self._db.write() as connection:
            await self._hold(
                connection,
                claim,
                updated_at=now,
                lease_holder=None,
                lease_expires_at=None,
                not_before=await self._now(connection) + (until - now),
            )
            await set_step(connection, claim, position, {"error": msgspec.to_builtins(failure)})
        self._signals.notify(claim.operation.id)

    async def hand_over(self, claim: Claim) -> None:
        async with self._db.write() as connection:
            await self._hold(connection, claim, updated_at=self._clock.now(), lease_holder=None, lease_expires_at=None)
        self._signals.notify(Signals.QUEUED)

    async def _hold(self, connection: AsyncConnection, claim: Claim, **values: object) -> sa.RowMapping:
        """Writes to the operation if the claim still owns it, and keeps its row locked until the transaction ends.

        Returns the row as it then stands. Raises LeaseLost.
        """
        statement = (
            sa.update(operations)
            .where(
                OPERATION.id == claim.operation.id,
                OPERATION.lease_token == claim.token,
                OPERATION.lease_holder == claim.holder,
                OPERATION.state == State.RUNNING,
            )
            .values(**values)
            .returning(operations)
        )
        row: sa.RowMapping | None = (await connection.execute(statement)).mappings().one_or_none()
        if row is None:
            raise LeaseLost
        return row


async def _next(
    connection: AsyncConnection,
    now: datetime,
    lease: timedelta,
    runnable: Collection[tuple[str, int]],
    *,
    lock: bool,
) -> str | None:
    """What waits longest: first what a dead or handing-over worker left, then what is queued.

    Two statements, each along the index on (state, created_at): one with OR would sort every queued row. A lease that
    ends later than any worker could have made it was given by a clock that has been set back since: it counts for
    nothing, and a worker that still holds it loses it as it would any other.
    """
    can_run = sa.tuple_(OPERATION.action, OPERATION.version).in_(sorted(runnable))
    due = sa.or_(OPERATION.not_before.is_(None), OPERATION.not_before <= now)
    lease_ends = OPERATION.lease_expires_at
    left = sa.or_(lease_ends.is_(None), lease_ends <= now, lease_ends > now + max(lease, _SHORT) * _LEASES_APART)
    for state, more in ((State.RUNNING, left), (State.QUEUED, sa.true())):
        statement = (
            sa.select(OPERATION.id)
            .where(OPERATION.state == state, can_run, due, more)
            .order_by(OPERATION.created_at)
            .limit(1)
        )
        if lock:
            statement = statement.with_for_update(skip_locked=True)
        found: str | None = (await connection.execute(statement)).scalar_one_or_none()
        if found is not None:
            return found
    return None
