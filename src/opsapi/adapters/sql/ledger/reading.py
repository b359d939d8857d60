"""What the ledger tells."""

from collections.abc import Sequence

import sqlalchemy as sa

from opsapi.adapters.sql.ledger.base import LedgerBase
from opsapi.adapters.sql.operation_rows import OPERATION, STEP, load, load_one
from opsapi.adapters.sql.tables import operations
from opsapi.operations.model import Depth, Operation, State, StepState
from opsapi.operations.ports import OperationFilter


class Reading(LedgerBase):
    async def holder(self, lock: str) -> Operation | None:
        async with self._db.read() as connection:
            return await self._holder(connection, lock)

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
