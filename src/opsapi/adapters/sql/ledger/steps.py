"""What a worker writes while it carries an operation out; every write states the claim that it holds."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from opsapi.adapters.sql.audit import insert_entry
from opsapi.adapters.sql.ledger.base import LOCK, HolderGone
from opsapi.adapters.sql.ledger.claims import Claims
from opsapi.adapters.sql.operation_rows import STEP, engine_entry, load_row, merge, set_step
from opsapi.adapters.sql.tables import operation_locks, operation_steps
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import OperationStopped
from opsapi.operations.model import (
    Announcement,
    Claim,
    Failure,
    Item,
    Operation,
    Outcome,
    State,
    StepState,
    Undo,
)


class Steps(Claims):
    async def start_step(self, claim: Claim, position: int) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            held = await self._hold(connection, claim, updated_at=now)
            await self._start(connection, claim.operation.id, position, now)
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

    async def put_item(
        self, claim: Claim, position: int, key: str, item: Item, *, intends: bool = False, found: bool = False
    ) -> None:
        now = self._clock.now()
        here = sa.and_(STEP.operation_id == claim.operation.id, STEP.position == position)
        async with self._db.write() as connection:
            held = await self._hold(connection, claim, updated_at=now)
            if intends and held["cancel_requested_at"] is not None:
                raise OperationStopped
            items = (await connection.execute(sa.select(STEP["items"]).where(here))).scalar_one() or {}
            items = items | {key: msgspec.to_builtins(item)}
            await connection.execute(sa.update(operation_steps).where(here).values(items=items))
            if found:
                name = claim.operation.steps[position].name
                await insert_entry(connection, engine_entry(claim.operation, f"{name} effect found on {key}", now))

    async def acquire(self, claim: Claim, keys: Collection[str]) -> None:
        now = self._clock.now()
        try:
            async with self._db.write() as connection:
                await self._hold(connection, claim, updated_at=now)
                await self._lock(connection, claim.operation.id, keys, now)
        except HolderGone:
            raise DependencyUnavailable("operations", "another operation just ended here", retry_after=1) from None

    async def release(self, claim: Claim, keys: Collection[str]) -> None:
        mine = sa.and_(LOCK.operation_id == claim.operation.id, LOCK.resource_id.in_(sorted(set(keys))))
        async with self._db.write() as connection:
            await self._hold(connection, claim, updated_at=self._clock.now())
            await connection.execute(sa.delete(operation_locks).where(mine))

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
        announcements: Sequence[Announcement] = (),
    ) -> Operation:
        now = self._clock.now()
        state = StepState.SKIPPED if skipped else StepState.COMPLETED
        async with self._db.write() as connection:
            held = await self._hold(connection, claim, updated_at=now)
            values = {"state": state, "finished_at": now, "message": message, "error": None}
            await set_step(connection, claim, position, values)
            if isinstance(then, State):
                operation = await self._end(
                    connection, held, then, now, result=result, outcome=outcome, announcements=announcements
                )
            else:
                held = await merge(connection, held, result, outcome)
                if then is not None:
                    await self._start(connection, claim.operation.id, then, now)
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

    async def note_undo(self, claim: Claim, position: int, undo: Undo) -> None:
        async with self._db.write() as connection:
            await self._hold(connection, claim, updated_at=self._clock.now())
            await set_step(connection, claim, position, {"undo": msgspec.to_builtins(undo)})
        self._signals.notify(claim.operation.id)

    async def finish(
        self,
        claim: Claim,
        state: State,
        *,
        outcome: Outcome | None = None,
        result: Mapping[str, Any] | None = None,
        error: Failure | None = None,
        announcements: Sequence[Announcement] = (),
    ) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            held = await self._hold(connection, claim, updated_at=now)
            finished = await self._end(
                connection,
                held,
                state,
                now,
                result=result,
                outcome=outcome,
                error=error,
                announcements=announcements,
            )
        self._signals.notify(claim.operation.id)
        return finished
