"""How an operation comes into the ledger: once per key, judged and locked in the transaction that writes it."""

from collections.abc import Collection
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import insert_call
from opsapi.adapters.sql.idempotency import KEPT, key_id
from opsapi.adapters.sql.ledger.base import HolderGone, LedgerBase
from opsapi.adapters.sql.ledger.history import read_history
from opsapi.adapters.sql.operation_rows import OPERATION, load_one, new_operation, new_steps
from opsapi.adapters.sql.tables import issued_plans, operation_steps, operation_targets, operations
from opsapi.kit.caller import Call
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.model import NewOperation, Operation
from opsapi.operations.signals import Signals
from opsapi.policy.admission import Admission
from opsapi.policy.model import History
from opsapi.webhooks.model import EventType

_BEGIN_TRIES = 3


class Beginning(LedgerBase):
    async def begin(
        self, new: NewOperation, call: Call, *, locks: Collection[str], admission: Admission | None = None
    ) -> Operation:
        trail = call.audit
        trail.workspace_id, trail.resource, trail.reason = new.workspace_id, new.resource_id, new.reason
        trail.operation_id = new.id
        try:
            begun = await self._begin_between(new, call, locks, admission)
        except BaseException:
            trail.operation_id = None
            raise
        trail.operation_id, trail.committed = begun.id, True
        self._signals.notify(Signals.QUEUED)
        return begun

    async def _begin_between(
        self, new: NewOperation, call: Call, locks: Collection[str], admission: Admission | None
    ) -> Operation:
        for _ in range(_BEGIN_TRIES):
            try:
                return await self._begin(new, call, locks, admission)
            except HolderGone:
                continue
        raise DependencyUnavailable("operations", "others keep taking what this operation needs", retry_after=1)

    async def _begin(
        self, new: NewOperation, call: Call, locks: Collection[str], admission: Admission | None
    ) -> Operation:
        now = self._clock.now()
        async with self._db.write() as connection:
            key = operation_key(call)
            if key is not None and (known := await _begun_under(connection, key, now)) is not None:
                await insert_call(connection, call, 202, now=self._clock.monotonic(), at=now)
                return known
            row = new_operation(new, call, now) | {"idempotency_id": key, "locks": sorted(set(locks))}
            fresh = self._db.insert(operations).values(row).on_conflict_do_nothing(index_elements=["idempotency_id"])
            if (await connection.execute(fresh)).rowcount != 1:
                raise HolderGone  # a twin under the same key has just begun: the next try finds it
            await connection.execute(sa.insert(operation_steps), new_steps(new))
            await _aim(connection, new, now)
            if new.approval is None:
                await self._lock(connection, new.id, locks, now)
            if admission is not None:
                await judge(self._db.is_sqlite, connection, admission, now, new.id)
            await insert_call(connection, call, 202, now=self._clock.monotonic(), at=now)
            begun = await load_one(connection, new.id)
            assert begun is not None
            if new.approval is not None:
                await self._tell(connection, EventType.APPROVAL_REQUESTED, begun, now)
        return begun

    async def earlier(self, call: Call) -> Operation | None:
        key = operation_key(call)
        if key is None:
            return None
        async with self._db.read() as connection:
            return await _begun_under(connection, key, self._clock.now(), forget=False)

    async def history(self, admission: Admission) -> History:
        async with self._db.read() as connection:
            return await read_history(connection, admission, self._clock.now())

    async def issue_plan(self, account_id: str, plan_hash: str, expires_at: datetime) -> None:
        row = {"account_id": account_id, "plan_hash": plan_hash, "expires_at": expires_at}
        statement = self._db.insert(issued_plans).values(row)
        keys = ["account_id", "plan_hash"]
        statement = statement.on_conflict_do_update(index_elements=keys, set_={"expires_at": expires_at})
        async with self._db.write() as connection:
            await connection.execute(statement)

    async def plan_issued(self, account_id: str, plan_hash: str) -> bool:
        plan = issued_plans.c
        statement = sa.select(plan.expires_at).where(plan.account_id == account_id, plan.plan_hash == plan_hash)
        async with self._db.read() as connection:
            expires_at = (await connection.execute(statement)).scalar_one_or_none()
        return expires_at is not None and expires_at > self._clock.now()


async def judge(
    is_sqlite: bool, connection: AsyncConnection, admission: Admission, now: datetime, operation_id: str
) -> None:
    """By what this transaction sees; scopes are locked first, so that no two count the same budget at once. Raises
    PolicyDenied."""
    history = await read_history(connection, admission, now, but=operation_id, lock=not is_sqlite)
    refusals = admission.judge(history, now)
    if refusals:
        raise refusals[0].error()


def operation_key(call: Call) -> str | None:
    if call.idempotency_key is None:
        return None
    return key_id(call.caller.account_id, call.method, call.path, call.idempotency_key)


async def _begun_under(
    connection: AsyncConnection, key: str, now: datetime, *, forget: bool = True
) -> Operation | None:
    """A key that has lived its day is free again."""
    statement = sa.select(OPERATION.id, OPERATION.created_at).where(OPERATION.idempotency_id == key)
    found = (await connection.execute(statement)).one_or_none()
    if found is None:
        return None
    if found.created_at > now - KEPT + timedelta(seconds=1):
        return await load_one(connection, found.id)
    if forget:
        free = sa.update(operations).where(OPERATION.id == found.id).values(idempotency_id=None)
        await connection.execute(free)
    return None


async def _aim(connection: AsyncConnection, new: NewOperation, now: datetime) -> None:
    if not new.targets:
        return
    at = new.targets_at or now
    rows = [
        {"operation_id": new.id, "target": target, "action": new.action, "at": at}
        for target in sorted(set(new.targets))
    ]
    await connection.execute(sa.insert(operation_targets), rows)
