"""What all parts of the ledger share: locks, the end of an operation, and its events."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import insert_call, insert_entry
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.operation_rows import OPERATION, STEP, engine_entry, load_one, load_row, merge
from opsapi.adapters.sql.outbox import insert_event
from opsapi.adapters.sql.tables import operation_locks, operation_steps, operations
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.kit.errors import InvalidState, StateDetails
from opsapi.kit.ids import new_id
from opsapi.operations.errors import InProgressDetails, OperationInProgress, OperationNotFound
from opsapi.operations.model import Announcement, Failure, Operation, Outcome, State, StepState
from opsapi.operations.signals import Signals
from opsapi.webhooks.model import Event, EventType

LOCK = operation_locks.c


class HolderGone(Exception):
    """What was in the way is another by now: the lock's holder ended, or a twin began. It is worth another try."""


class LedgerBase:
    def __init__(self, database: Database, clock: Clock, signals: Signals) -> None:
        self._db = database
        self._clock = clock
        self._signals = signals

    async def _now(self, connection: AsyncConnection) -> datetime:
        if self._db.is_sqlite:
            return self._clock.now()
        now: datetime = (await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
        return now

    async def _lock(self, connection: AsyncConnection, operation_id: str, keys: Collection[str], now: datetime) -> None:
        """In sorted order, so that two who want the same never wait for each other. Raises OperationInProgress, and
        HolderGone where it is worth another try."""
        for resource_id in sorted(set(keys)):
            row = {"resource_id": resource_id, "operation_id": operation_id, "taken_at": now}
            taken = await connection.execute(self._db.insert(operation_locks).values(row).on_conflict_do_nothing())
            if taken.rowcount == 1:
                continue
            holder = await self._holder(connection, resource_id)
            if holder is None:
                raise HolderGone
            if holder.id != operation_id:
                raise OperationInProgress(InProgressDetails.of(resource_id, holder))

    async def _holder(self, connection: AsyncConnection, resource_id: str) -> Operation | None:
        statement = sa.select(LOCK.operation_id).where(LOCK.resource_id == resource_id)
        operation_id = (await connection.execute(statement)).scalar_one_or_none()
        return None if operation_id is None else await load_one(connection, operation_id)

    async def _start(self, connection: AsyncConnection, operation_id: str, position: int, now: datetime) -> None:
        """Marks a step in progress and counts the attempt; one that has failed stays so while it is undone."""
        statement = (
            sa.update(operation_steps)
            .where(STEP.operation_id == operation_id, STEP.position == position)
            .values(
                state=sa.case((STEP.state == StepState.FAILED, StepState.FAILED), else_=StepState.IN_PROGRESS),
                attempts=STEP.attempts + 1,
                started_at=sa.func.coalesce(STEP.started_at, sa.bindparam("begun", now, STEP.started_at.type)),
            )
        )
        await connection.execute(statement)

    async def _end(
        self,
        connection: AsyncConnection,
        held: sa.RowMapping,
        state: State,
        now: datetime,
        *,
        result: Mapping[str, Any] | None = None,
        outcome: Outcome | None = None,
        error: Failure | None = None,
        announcements: Sequence[Announcement] = (),
    ) -> Operation:
        """The end, the freed locks, the audit entry and the events, in the transaction of whoever calls."""
        ending: dict[str, Any] = {
            "state": state,
            "finished_at": now,
            "lease_holder": None,
            "lease_expires_at": None,
            "updated_at": now,
        }
        if error is not None:
            ending["error"] = msgspec.to_builtins(error)
        row = await merge(connection, held, result, outcome, **ending)
        await connection.execute(sa.delete(operation_locks).where(LOCK.operation_id == row["id"]))
        finished = await load_row(connection, row)
        await insert_entry(connection, engine_entry(finished, f"{finished.action} {state.value}", now))
        kind = EventType.OPERATION_COMPLETED if state is State.COMPLETED else EventType.OPERATION_FAILED
        await self._tell(connection, kind, finished, now)
        for one in announcements:
            event = Event(
                id=new_id("evt"),
                type=one.type,
                workspace_id=finished.workspace_id,
                occurred_at=now,
                data=one.data,
                channels=one.channels,
            )
            await insert_event(connection, event)
        return finished

    async def _tell(self, connection: AsyncConnection, kind: EventType, operation: Operation, now: datetime) -> None:
        event = Event(
            id=new_id("evt"),
            type=kind,
            workspace_id=operation.workspace_id,
            occurred_at=now,
            data=event_data(operation),
        )
        await insert_event(connection, event)

    async def _audited(
        self, connection: AsyncConnection, by: Call | System, operation: Operation, now: datetime
    ) -> None:
        """What a caller did to an operation, in the transaction that does it."""
        await insert_call(
            connection,
            by,
            200,
            now=self._clock.monotonic(),
            at=now,
            resource=f"operation/{operation.id}",
            workspace_id=operation.workspace_id,
            operation_id=operation.id,
        )

    def _changed(self, by: Call | System, operation: Operation) -> Operation:
        """After the commit: the audit stands, and whoever waits is woken."""
        if isinstance(by, Call):
            by.audit.committed = True
        self._signals.notify(operation.id)
        self._signals.notify(Signals.QUEUED)
        return operation


async def locked_row(connection: AsyncConnection, operation_id: str) -> sa.RowMapping:
    """The operation's row, ours until the transaction ends. Raises OperationNotFound."""
    statement = sa.select(operations).where(OPERATION.id == operation_id).with_for_update()
    row: sa.RowMapping | None = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise OperationNotFound(operation_id)
    return row


def invalid_state(row: sa.RowMapping, message: str, *allowed: State) -> InvalidState:
    details = StateDetails(resource_id=row["id"], state=row["state"], allowed_from=[state.value for state in allowed])
    return InvalidState(message, details)


def event_data(operation: Operation) -> dict[str, Any]:
    """The payload of an operation's events; the reason is the caller's own text."""
    error = operation.error
    return {
        "operation_id": operation.id,
        "operation": operation.action,
        "workspace_id": operation.workspace_id,
        "application_id": operation.application_id,
        "status": operation.state.value,
        "outcome": None if operation.outcome is None else operation.outcome.value,
        "requested_by": operation.requested_by,
        "approved_by": operation.approved_by,
        "reason": operation.reason,
        "error": None if error is None else {"code": error.code, "message": error.message},
    }


def who(by: Call | System) -> str:
    return by.caller.account_id if isinstance(by, Call) else by.account_id
