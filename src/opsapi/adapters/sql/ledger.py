"""The ledger of operations on SQLite and PostgreSQL: exclusivity is a primary key, ownership a fenced lease."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import insert_call, insert_entry
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.operation_rows import (
    OPERATION,
    STEP,
    engine_entry,
    load,
    load_one,
    load_row,
    merge,
    new_operation,
    new_steps,
    set_step,
)
from opsapi.adapters.sql.tables import operation_locks, operation_steps, operations
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import InProgressDetails, LeaseLost, OperationInProgress, OperationStopped
from opsapi.operations.model import (
    Claim,
    Depth,
    Failure,
    NewOperation,
    Operation,
    Outcome,
    State,
    StepState,
    Undo,
)
from opsapi.operations.ports import OperationFilter
from opsapi.operations.signals import Signals

_LOCK = operation_locks.c
_BEGIN_TRIES = 3


class SqlLedger:
    """Implements operations' Ledger. Leases run on PostgreSQL's own clock, so that replicas need not agree on the
    time; on SQLite, where all processes share a machine, on `clock`."""

    def __init__(self, database: Database, clock: Clock, signals: Signals) -> None:
        self._db = database
        self._clock = clock
        self._signals = signals
        self._expecting = False
        """The last claim found work: the next does not look first without the lock, as an idle poll does."""

    async def begin(self, new: NewOperation, call: Call, *, locks: Collection[str]) -> Operation:
        trail = call.audit
        trail.workspace_id, trail.resource, trail.reason = new.workspace_id, new.resource_id, new.reason
        trail.operation_id = new.id
        try:
            begun = await self._begin_between(new, call, sorted(set(locks)))
        except BaseException:
            trail.operation_id = None
            raise
        trail.committed = True
        self._signals.notify(Signals.QUEUED)
        return begun

    async def _begin_between(self, new: NewOperation, call: Call, locks: Sequence[str]) -> Operation:
        for _ in range(_BEGIN_TRIES):
            try:
                return await self._begin(new, call, locks)
            except _HolderGone:
                continue
        raise DependencyUnavailable("operations", "others keep taking what this operation needs", retry_after=1)

    async def _begin(self, new: NewOperation, call: Call, locks: Sequence[str]) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            await connection.execute(sa.insert(operations).values(new_operation(new, call, now)))
            await connection.execute(sa.insert(operation_steps), new_steps(new))
            for resource_id in locks:
                await self._lock(connection, resource_id, new.id, now)
            await insert_call(connection, call, 202, now=self._clock.monotonic(), at=now)
            begun = await load_one(connection, new.id)
        assert begun is not None
        return begun

    async def _lock(self, connection: AsyncConnection, resource_id: str, operation_id: str, now: datetime) -> None:
        row = {"resource_id": resource_id, "operation_id": operation_id, "taken_at": now}
        taken = await connection.execute(self._db.insert(operation_locks).values(row).on_conflict_do_nothing())
        if taken.rowcount == 1:
            return
        holder = await self._holder(connection, resource_id)
        if holder is None:
            raise _HolderGone
        raise OperationInProgress(
            InProgressDetails(
                resource_id=resource_id.partition("/")[2] or resource_id,
                current_operation=holder.action,
                estimated_completion=_to_the_second(holder.estimated_completion),
                current_operation_id=holder.id,
            )
        )

    async def holder(self, lock: str) -> Operation | None:
        async with self._db.read() as connection:
            return await self._holder(connection, lock)

    async def _holder(self, connection: AsyncConnection, resource_id: str) -> Operation | None:
        statement = sa.select(_LOCK.operation_id).where(_LOCK.resource_id == resource_id)
        operation_id = (await connection.execute(statement)).scalar_one_or_none()
        return None if operation_id is None else await load_one(connection, operation_id)

    async def claim(self, holder: str, lease: timedelta, runnable: Collection[tuple[str, int]]) -> Claim | None:
        if not runnable:
            return None
        if not self._expecting:
            async with self._db.read() as connection:
                now = await self._now(connection)
                if not await _next(connection, now, runnable, lock=False):
                    return None
        async with self._db.write() as connection:
            now = await self._now(connection)
            operation_id = await _next(connection, now, runnable, lock=True)
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
        operation = await load_row(connection, row)
        return Claim(operation=operation, holder=holder, token=row["lease_token"], taken_over=operation.attempts > 1)

    async def renew(self, claim: Claim, lease: timedelta) -> bool:
        async with self._db.write() as connection:
            now = await self._now(connection)
            held = await self._hold(connection, claim, lease_expires_at=now + lease)
            return held["cancel_requested_at"] is not None

    async def start_step(self, claim: Claim, position: int) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            held = await self._hold(connection, claim, updated_at=now)
            await self._start(connection, claim, position, now)
            started = await load_row(connection, held)
        self._signals.notify(claim.operation.id)
        return started

    async def intend(self, claim: Claim, position: int, intent: Mapping[str, Any]) -> None:
        now = self._clock.now()
        async with self._db.write() as connection:
            held = await self._hold(connection, claim, updated_at=now)
            if held["cancel_requested_at"] is not None:
                raise OperationStopped
            values = {"intent": dict(intent), "intent_at": now, "effect": None, "effect_at": None}
            await set_step(connection, claim, position, values)

    async def withdraw(self, claim: Claim, position: int) -> None:
        async with self._db.write() as connection:
            await self._hold(connection, claim, updated_at=self._clock.now())
            await set_step(connection, claim, position, {"intent": None, "intent_at": None})

    async def record(self, claim: Claim, position: int, effect: Mapping[str, Any], *, found: bool = False) -> None:
        now = self._clock.now()
        async with self._db.write() as connection:
            await self._hold(connection, claim, updated_at=now)
            await set_step(connection, claim, position, {"effect": dict(effect), "effect_at": now})
            if found:
                name = claim.operation.steps[position].name
                await insert_entry(connection, engine_entry(claim.operation, f"{name} effect found", now))

    async def complete_step(
        self,
        claim: Claim,
        position: int,
        message: str,
        *,
        result: Mapping[str, Any] | None = None,
        outcome: Outcome | None = None,
        skipped: bool = False,
        then: int | State | None = None,
    ) -> Operation:
        now = self._clock.now()
        state = StepState.SKIPPED if skipped else StepState.COMPLETED
        async with self._db.write() as connection:
            held = await self._hold(connection, claim, updated_at=now)
            values = {"state": state, "finished_at": now, "message": message, "error": None}
            await set_step(connection, claim, position, values)
            if isinstance(then, State):
                operation = await self._end(connection, held, then, now, result, outcome)
            else:
                held = await merge(connection, held, result, outcome)
                if then is not None:
                    await self._start(connection, claim, then, now)
                operation = await load_row(connection, held)
        self._signals.notify(claim.operation.id)
        return operation

    async def fail_step(self, claim: Claim, position: int, failure: Failure) -> None:
        now = self._clock.now()
        error = msgspec.to_builtins(failure)
        async with self._db.write() as connection:
            await self._hold(connection, claim, updated_at=now, error=error)
            values = {"state": StepState.FAILED, "finished_at": now, "message": failure.message, "error": error}
            await set_step(connection, claim, position, values)
        self._signals.notify(claim.operation.id)

    async def postpone(self, claim: Claim, position: int, failure: Failure, until: datetime) -> None:
        async with self._db.write() as connection:
            await self._hold(
                connection,
                claim,
                updated_at=self._clock.now(),
                lease_holder=None,
                lease_expires_at=None,
                not_before=until,
            )
            await set_step(connection, claim, position, {"error": msgspec.to_builtins(failure)})
        self._signals.notify(claim.operation.id)

    async def note_undo(self, claim: Claim, position: int, undo: Undo) -> None:
        async with self._db.write() as connection:
            await self._hold(connection, claim, updated_at=self._clock.now())
            await set_step(connection, claim, position, {"undo": msgspec.to_builtins(undo)})
        self._signals.notify(claim.operation.id)

    async def hand_over(self, claim: Claim) -> None:
        async with self._db.write() as connection:
            await self._hold(connection, claim, updated_at=self._clock.now(), lease_holder=None, lease_expires_at=None)
        self._signals.notify(Signals.QUEUED)

    async def finish(
        self,
        claim: Claim,
        state: State,
        *,
        outcome: Outcome | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            held = await self._hold(connection, claim, updated_at=now)
            finished = await self._end(connection, held, state, now, result, outcome)
        self._signals.notify(claim.operation.id)
        return finished

    async def _start(self, connection: AsyncConnection, claim: Claim, position: int, now: datetime) -> None:
        statement = (
            sa.update(operation_steps)
            .where(STEP.operation_id == claim.operation.id, STEP.position == position)
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
        result: Mapping[str, Any] | None,
        outcome: Outcome | None,
    ) -> Operation:
        """The end, the freed locks and the audit entry, in the transaction of whoever calls."""
        ending = {"state": state, "finished_at": now, "lease_holder": None, "lease_expires_at": None}
        row = await merge(connection, held, result, outcome, **ending)
        await connection.execute(sa.delete(operation_locks).where(_LOCK.operation_id == row["id"]))
        finished = await load_row(connection, row)
        await insert_entry(connection, engine_entry(finished, f"{finished.action} {state.value}", now))
        return finished

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

    async def get(self, operation_id: str) -> Operation | None:
        async with self._db.read() as connection:
            return await load_one(connection, operation_id)

    async def find(self, wanted: OperationFilter) -> list[Operation]:
        statement = sa.select(operations)
        if wanted.workspaces is not None:
            statement = statement.where(OPERATION.workspace_id.in_(sorted(wanted.workspaces)))
        if wanted.application_id is not None:
            statement = statement.where(OPERATION.application_id == wanted.application_id)
        if wanted.action is not None:
            statement = statement.where(OPERATION.action == wanted.action)
        if wanted.states is not None:
            statement = statement.where(OPERATION.state.in_(sorted(wanted.states)))
        if wanted.before is not None:
            moment, last = wanted.before
            older = sa.or_(OPERATION.created_at < moment, sa.and_(OPERATION.created_at == moment, OPERATION.id < last))
            statement = statement.where(older)
        statement = statement.order_by(OPERATION.created_at.desc(), OPERATION.id.desc()).limit(wanted.limit)
        async with self._db.read() as connection:
            return await load(connection, (await connection.execute(statement)).mappings().all())

    async def step_durations(self, action: str, limit: int) -> dict[str, Sequence[float]]:
        recent = (
            sa.select(OPERATION.id)
            .where(OPERATION.action == action, OPERATION.state == State.COMPLETED)
            .order_by(OPERATION.created_at.desc())
            .limit(limit)
            .scalar_subquery()
        )
        statement = sa.select(STEP.name, STEP.started_at, STEP.finished_at).where(
            STEP.operation_id.in_(recent), STEP.state == StepState.COMPLETED
        )
        taken: dict[str, list[float]] = {}
        async with self._db.read() as connection:
            for name, started, finished in await connection.execute(statement):
                if started is not None and finished is not None:
                    taken.setdefault(name, []).append((finished - started).total_seconds())
        return dict(taken)

    async def depth(self) -> Depth:
        statement = (
            sa.select(OPERATION.state, sa.func.count(), sa.func.min(OPERATION.created_at))
            .where(OPERATION.state.in_((State.QUEUED, State.RUNNING)))
            .group_by(OPERATION.state)
        )
        async with self._db.read() as connection:
            found = {state: (count, oldest) for state, count, oldest in await connection.execute(statement)}
        queued, oldest = found.get(State.QUEUED, (0, None))
        running, _ = found.get(State.RUNNING, (0, None))
        return Depth(queued, running, oldest)

    async def _now(self, connection: AsyncConnection) -> datetime:
        if self._db.is_sqlite:
            return self._clock.now()
        now: datetime = (await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
        return now


def _to_the_second(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(microsecond=0)


class _HolderGone(Exception):
    """The lock's holder ended between our try and our look."""


async def _next(
    connection: AsyncConnection, now: datetime, runnable: Collection[tuple[str, int]], *, lock: bool
) -> str | None:
    """What waits longest: first what a dead or handing-over worker left, then what is queued.

    Two statements, each along the index on (state, created_at): one with OR would sort every queued row.
    """
    can_run = sa.tuple_(OPERATION.action, OPERATION.version).in_(sorted(runnable))
    due = sa.or_(OPERATION.not_before.is_(None), OPERATION.not_before <= now)
    left = sa.or_(OPERATION.lease_expires_at.is_(None), OPERATION.lease_expires_at <= now)
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
