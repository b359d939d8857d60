"""Stopping, undoing, pausing and forgetting."""

from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import insert_call
from opsapi.adapters.sql.ledger.base import HolderGone, LedgerBase, invalid_state, locked_row, who
from opsapi.adapters.sql.ledger.beginning import judge
from opsapi.adapters.sql.ledger.history import failing_targets, pause_of
from opsapi.adapters.sql.operation_rows import OPERATION, STEP, load_row
from opsapi.adapters.sql.tables import issued_plans, operation_steps, operation_targets, operations, pauses
from opsapi.kit.caller import Call, System
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.model import FINAL, Failure, Item, Operation, State, Undo, UndoState
from opsapi.policy.admission import Admission
from opsapi.policy.model import EVERYWHERE, Pause, PolicySettings, TargetHistory

_BEFORE_IT_RUNS = (State.QUEUED, State.PENDING_APPROVAL)


class Control(LedgerBase):
    async def cancel(self, operation_id: str, by: Call | System) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            row = await locked_row(connection, operation_id)
            state = State(row["state"])
            if state.final:
                raise invalid_state(row, "The operation has ended already", *(s for s in State if not s.final))
            failure = Failure(code="CANCELLED", message=f"Cancelled by {who(by)}")
            if state in _BEFORE_IT_RUNS:
                operation = await self._end(connection, row, State.CANCELLED, now, error=failure)
            else:
                operation = await _ask_to_stop(connection, row, by, now)
            await self._audited(connection, by, operation, now)
        return self._changed(by, operation)

    async def reopen(self, operation_id: str, by: Call | System, *, admission: Admission, until: datetime) -> Operation:
        try:
            return self._changed(by, await self._reopen(operation_id, by, admission, until))
        except HolderGone:
            raise DependencyUnavailable("operations", "another operation just ended here", retry_after=1) from None

    async def _reopen(self, operation_id: str, by: Call | System, admission: Admission, until: datetime) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            row = await locked_row(connection, operation_id)
            ended = await load_row(connection, row)
            if not ended.state.final or not _can_be_undone(ended):
                message = "The operation has no effect that could be undone, or has not ended"
                raise invalid_state(row, message, State.COMPLETED, State.FAILED, State.CANCELLED)
            await self._lock(connection, operation_id, row["locks"] or (), now)
            await judge(self._db.is_sqlite, connection, admission, now, operation_id)
            values = {
                "state": State.QUEUED,
                "rollback_requested_at": now,
                "rollback_requested_by": who(by),
                "finished_at": None,
                "cancel_requested_at": None,
                "cancel_requested_by": None,
                "not_before": None,
                "deadline_at": until,
                "updated_at": now,
            }
            statement = sa.update(operations).where(OPERATION.id == operation_id).values(values).returning(operations)
            row = (await connection.execute(statement)).mappings().one()
            await _forget_skipped(connection, ended)
            reopened = await load_row(connection, row)
            await self._audited(connection, by, reopened, now)
        return reopened

    async def pause(self, scope: str, by: Call | System, reason: str | None) -> Pause:
        now = self._clock.now()
        row = {"scope": scope, "paused_at": now, "paused_by": who(by), "reason": reason}
        where = sa.true() if scope == EVERYWHERE else OPERATION.workspace_id == scope
        async with self._db.write() as connection:
            await connection.execute(self._db.insert(pauses).values(row).on_conflict_do_nothing())
            held = sa.select(pauses).where(pauses.c.scope == scope)
            pause = pause_of((await connection.execute(held)).mappings().one())
            stopped = await self._stop_all(connection, where, by, now)
            await self._audit_pause(connection, by, scope, reason, now)
        self._stopped(by, stopped)
        return pause

    async def _stop_all(
        self, connection: AsyncConnection, where: sa.ColumnElement[bool], by: Call | System, now: datetime
    ) -> list[str]:
        open_ = sa.select(operations).where(where, OPERATION.state.not_in(sorted(FINAL))).with_for_update()
        rows = (await connection.execute(open_.order_by(OPERATION.id))).mappings().all()
        failure = Failure(code="PAUSED", message=f"Paused by {who(by)}")
        for row in rows:
            if row["state"] in _BEFORE_IT_RUNS:
                await self._end(connection, row, State.CANCELLED, now, error=failure)
            else:
                await _ask_to_stop(connection, row, by, now)
        return [row["id"] for row in rows]

    async def resume(self, scope: str, by: Call | System) -> bool:
        now = self._clock.now()
        async with self._db.write() as connection:
            gone = await connection.execute(sa.delete(pauses).where(pauses.c.scope == scope))
            await self._audit_pause(connection, by, scope, None, now)
        self._stopped(by, [])
        return gone.rowcount == 1

    async def _audit_pause(
        self, connection: AsyncConnection, by: Call | System, scope: str, reason: str | None, now: datetime
    ) -> None:
        await insert_call(
            connection,
            by,
            200,
            now=self._clock.monotonic(),
            at=now,
            resource=f"pause/{scope}",
            reason=reason,
            workspace_id=None if scope == EVERYWHERE else scope,
        )

    def _stopped(self, by: Call | System, operation_ids: list[str]) -> None:
        if isinstance(by, Call):
            by.audit.committed = True
        for operation_id in operation_ids:
            self._signals.notify(operation_id)

    async def pauses(self) -> list[Pause]:
        async with self._db.read() as connection:
            rows = (await connection.execute(sa.select(pauses).order_by(pauses.c.scope))).mappings().all()
        return [pause_of(row) for row in rows]

    async def failing(self, settings: PolicySettings) -> dict[str, TargetHistory]:
        """Targets that are blocked now, by lock key."""
        async with self._db.read() as connection:
            return await failing_targets(connection, settings, self._clock.now())

    async def purge(self, before: datetime, limit: int = 500) -> int:
        old = sa.select(OPERATION.id).where(OPERATION.finished_at < before).order_by(OPERATION.finished_at).limit(limit)
        async with self._db.write() as connection:
            ids = (await connection.execute(old)).scalars().all()
            for table in (operation_steps, operation_targets):
                await connection.execute(sa.delete(table).where(table.c.operation_id.in_(ids)))
            await connection.execute(sa.delete(operations).where(OPERATION.id.in_(ids)))
            await connection.execute(sa.delete(issued_plans).where(issued_plans.c.expires_at < before))
        return len(ids)


async def _ask_to_stop(connection: AsyncConnection, row: sa.RowMapping, by: Call | System, now: datetime) -> Operation:
    values = {"cancel_requested_at": now, "cancel_requested_by": who(by), "updated_at": now, "not_before": None}
    statement = sa.update(operations).where(OPERATION.id == row["id"]).values(values).returning(operations)
    return await load_row(connection, (await connection.execute(statement)).mappings().one())


async def _forget_skipped(connection: AsyncConnection, operation: Operation) -> None:
    """What could not be undone before, of steps and of their items, may be now."""
    for step in operation.steps:
        if not _skipped(step.undo):
            continue
        items = {key: _forgotten(item) for key, item in step.items.items()}
        here = sa.and_(STEP.operation_id == operation.id, STEP.position == step.position)
        values = {"undo": None, "items": msgspec.to_builtins(items)}
        await connection.execute(sa.update(operation_steps).where(here).values(values))


def _forgotten(item: Item) -> Item:
    return msgspec.structs.replace(item, undo=None) if _skipped(item.undo) else item


def _skipped(undo: Undo | None) -> bool:
    return undo is not None and undo.state is UndoState.SKIPPED


def _can_be_undone(operation: Operation) -> bool:
    """A step whose effect stands, and was not given up on; what is undone already is left."""
    done = (UndoState.UNDONE, UndoState.NEEDLESS)
    return any(step.touched and (step.undo is None or step.undo.state not in done) for step in operation.steps)
