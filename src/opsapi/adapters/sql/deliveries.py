"""Deliveries' rows: handed out from the outbox, claimed, recorded, listed and purged."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import insert_call
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import outbox_events, webhook_deliveries, webhooks
from opsapi.adapters.sql.webhook_rows import SigningSecrets, webhook_of
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.webhooks.model import Attempt, Delivery, DeliveryState, Event, EventType, Webhook
from opsapi.webhooks.ports import Backlog, Claimed, DeliveryFilter, NewDelivery, Route, Verdict
from opsapi.workspaces.ports import Sealer

_D = webhook_deliveries.c
_E = outbox_events.c
_W = webhooks.c
_FIELDS = tuple(field.name for field in msgspec.structs.fields(Delivery))
_KNOWN_TYPES = [kind.value for kind in EventType]
_LOOKED_AT = 64
"""Due deliveries that a claim chooses from."""
_HISTORY = 30
_PURGE = 1000
_EVENTS_KEPT = timedelta(days=1)
# Written out, not bound: only then do both engines see that the partial index on what is due will do.
_PENDING = _D.state == sa.literal(DeliveryState.PENDING.value, literal_execute=True)


class SqlDeliveryStore:
    """Implements DeliveryStore. Without a `sealer` no claim has keys, and so nothing is sent to a webhook."""

    def __init__(self, database: Database, sealer: Sealer | None, clock: Clock) -> None:
        self._database = database
        self._secrets = SigningSecrets(sealer)
        self._clock = clock

    async def dispatch(self, route: Route, limit: int, retry: timedelta) -> int:
        # Types of a later release stay for its replicas.
        waiting = (
            sa.select(outbox_events)
            .where(_E.dispatched_at.is_(None), _E.type.in_(_KNOWN_TYPES))
            .order_by(_E.occurred_at, _E.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            if (await connection.execute(waiting.with_only_columns(_E.id).limit(1))).first() is None:
                return 0
        now = self._clock.now()
        async with self._database.write() as connection:
            rows = (await connection.execute(waiting.with_for_update(skip_locked=True))).mappings().all()
            if not rows:
                return 0
            enabled = sa.select(webhooks).where(_W.enabled.is_(sa.true())).order_by(_W.id)
            told = [webhook_of(row) for row in (await connection.execute(enabled)).mappings()]
            new = [_new_row(one, now, now, now + retry) for row in rows for one in route(_event(row), told)]
            if new:
                insert = self._database.insert(webhook_deliveries).on_conflict_do_nothing(index_elements=["id"])
                await connection.execute(insert, new)
            done = sa.update(outbox_events).where(_E.id.in_([row["id"] for row in rows])).values(dispatched_at=now)
            await connection.execute(done)
            return len(rows)

    async def claim(
        self, limit: int, lease: timedelta, room: Callable[[str], int], full: Collection[str]
    ) -> list[Claimed]:
        now = self._clock.now()
        due = sa.select(_D.id, _D.target).where(_PENDING, _D.next_attempt_at <= now)
        if full:
            due = due.where(_D.target.not_in(sorted(full)))
        due = due.order_by(_D.next_attempt_at, _D.id).limit(_LOOKED_AT)
        async with self._database.read() as connection:
            chosen = _fitting([(row.id, row.target) for row in await connection.execute(due)], limit, room)
        if not chosen:
            return []
        async with self._database.write() as connection:
            free = sa.select(_D.id).where(_D.id.in_(chosen), _PENDING, _D.next_attempt_at <= now)
            held = set((await connection.execute(free.with_for_update(skip_locked=True))).scalars())
            ids = [one for one in chosen if one in held]
            return await self._take(connection, ids, now, lease) if ids else []

    async def _take(
        self, connection: AsyncConnection, ids: Sequence[str], now: datetime, lease: timedelta
    ) -> list[Claimed]:
        statement = (
            sa.update(webhook_deliveries)
            .where(_D.id.in_(ids))
            .values(next_attempt_at=now + lease, lease_token=_D.lease_token + 1, attempts=_D.attempts + 1)
            .returning(webhook_deliveries)
        )
        rows = (await connection.execute(statement)).mappings().all()
        targets = await self._targets(connection, sorted({row["target"] for row in rows}), now)
        place = {delivery_id: number for number, delivery_id in enumerate(ids)}
        claims = [_claimed(row, *targets.get(row["target"], (None, None))) for row in rows]
        return sorted(claims, key=lambda claimed: place[claimed.delivery.id])

    async def claim_new(self, delivery: NewDelivery, lease: timedelta) -> Claimed:
        now = self._clock.now()
        # Its time is over from the start, so that nobody tries it again, and were its process to die it ends as dead.
        row = _new_row(delivery, now, now + lease, now)
        async with self._database.write() as connection:
            await connection.execute(sa.insert(webhook_deliveries), row | {"lease_token": 1, "attempts": 1})
            targets = await self._targets(connection, [delivery.target], now)
            statement = sa.select(webhook_deliveries).where(_D.id == delivery.id)
            held = (await connection.execute(statement)).mappings().one()
        claimed = _claimed(held, *targets.get(delivery.target, (None, None)))
        return msgspec.structs.replace(claimed, once=True)

    async def record(self, claimed: Claimed, verdict: Verdict) -> bool:
        now = self._clock.now()
        mine = sa.and_(_D.id == claimed.delivery.id, _D.lease_token == claimed.token)
        async with self._database.write() as connection:
            held = sa.select(_D.state, _D.history).where(mine).with_for_update()
            row = (await connection.execute(held)).one_or_none()
            if row is None:
                return False
            state, again = verdict.state, verdict.next_attempt_at
            if row.state != DeliveryState.PENDING.value and state is DeliveryState.PENDING:
                # The webhook was disabled while this was on its way: what was buried is not tried again.
                state, again = DeliveryState.DEAD, None
            history = [*row.history, msgspec.to_builtins(verdict.attempt)][-_HISTORY:]
            ended = None if state is DeliveryState.PENDING else now
            values = {"state": state.value, "next_attempt_at": again, "finished_at": ended, "history": history}
            await connection.execute(sa.update(webhook_deliveries).where(mine).values(values))
            if claimed.webhook is not None:
                await self._note_health(connection, claimed.webhook.id, verdict, now)
        return True

    async def _note_health(self, connection: AsyncConnection, webhook_id: str, verdict: Verdict, now: datetime) -> None:
        values: dict[str, Any] = {}
        if verdict.healthy:
            values = {"last_success_at": now, "failing_since": None}
        elif verdict.healthy is False:
            values = {
                "failing_since": sa.func.coalesce(_W.failing_since, sa.bindparam("began", now, _W.updated_at.type))
            }
        if values:
            await connection.execute(sa.update(webhooks).where(_W.id == webhook_id).values(values))
        if verdict.disable is None:
            return
        off = {"enabled": False, "disabled_because": verdict.disable.value, "disabled_at": now, "updated_at": now}
        disabling = sa.update(webhooks).where(_W.id == webhook_id, _W.enabled.is_(sa.true())).values(off)
        if (await connection.execute(disabling)).rowcount == 1:
            await bury_waiting(connection, webhook_id, now)
            by = System("webhooks", f"disable {webhook_id}: {verdict.disable.value}")
            await insert_call(
                connection, by, 200, now=self._clock.monotonic(), at=now, resource=f"webhook/{webhook_id}"
            )

    async def deliveries(self, wanted: DeliveryFilter) -> list[Delivery]:
        statement = sa.select(webhook_deliveries).where(_D.target == wanted.target)
        if wanted.state is not None:
            statement = statement.where(_D.state == wanted.state.value)
        if wanted.before is not None:
            moment, last = wanted.before
            older = sa.or_(_D.created_at < moment, sa.and_(_D.created_at == moment, _D.id < last))
            statement = statement.where(older)
        statement = statement.order_by(_D.created_at.desc(), _D.id.desc()).limit(wanted.limit)
        async with self._database.read() as connection:
            return [_delivery(row) for row in (await connection.execute(statement)).mappings()]

    async def redeliver(self, delivery_id: str, target: str, retry: timedelta, by: Call | System) -> Delivery | None:
        now = self._clock.now()
        statement = (
            sa.update(webhook_deliveries)
            .where(_D.id == delivery_id, _D.target == target)
            .values(
                state=DeliveryState.PENDING.value,
                next_attempt_at=now,
                give_up_at=now + retry,
                finished_at=None,
                lease_token=_D.lease_token + 1,
            )
            .returning(webhook_deliveries)
        )
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
            if row is None:
                return None
            resource = f"webhook/{target}/deliveries/{delivery_id}"
            await insert_call(connection, by, 200, now=self._clock.monotonic(), at=now, resource=resource)
        if isinstance(by, Call):
            by.audit.committed = True
        return _delivery(row)

    async def backlog(self) -> Backlog:
        waiting = sa.select(sa.func.count(), sa.func.min(_E.occurred_at)).where(_E.dispatched_at.is_(None))
        due = sa.select(sa.func.count(), sa.func.min(_D.next_attempt_at)).where(
            _PENDING, _D.next_attempt_at <= self._clock.now()
        )
        async with self._database.read() as connection:
            events, first = (await connection.execute(waiting)).one()
            deliveries, second = (await connection.execute(due)).one()
        oldest = min((moment for moment in (first, second) if moment is not None), default=None)
        return Backlog(events=events, deliveries=deliveries, oldest=oldest)

    async def purge(self, keep: timedelta, keep_dead: timedelta) -> int:
        now = self._clock.now()
        ended = _D.finished_at.is_not(None)
        total = await self._delete(webhook_deliveries, ended, _D.state == "delivered", _D.finished_at < now - keep)
        total += await self._delete(webhook_deliveries, ended, _D.state == "dead", _D.finished_at < now - keep_dead)
        return total + await self._delete(outbox_events, _E.dispatched_at < now - _EVENTS_KEPT)

    async def _delete(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        """A thousand at most a transaction, so that no writer waits long."""
        total = 0
        while True:
            old = sa.select(table.c.id).where(*conditions).limit(_PURGE)
            async with self._database.write() as connection:
                deleted = (await connection.execute(sa.delete(table).where(table.c.id.in_(old)))).rowcount
            total += deleted
            if deleted < _PURGE:
                return total

    async def _targets(
        self, connection: AsyncConnection, ids: Sequence[str], now: datetime
    ) -> dict[str, tuple[Webhook, tuple[bytes, ...] | None]]:
        """Webhooks of these ids, with the keys that sign for them."""
        rows = (await connection.execute(sa.select(webhooks).where(_W.id.in_(ids)))).mappings()
        return {row["id"]: (webhook_of(row), self._secrets.keys(row, now)) for row in rows}


async def bury_waiting(connection: AsyncConnection, target: str, now: datetime) -> None:
    """What waits for a disabled webhook are dead letters; attempts on their way may still say that they arrived."""
    buried = {"state": DeliveryState.DEAD.value, "next_attempt_at": None, "finished_at": now}
    await connection.execute(sa.update(webhook_deliveries).where(_PENDING, _D.target == target).values(buried))


def _fitting(due: Sequence[tuple[str, str]], limit: int, room: Callable[[str], int]) -> list[str]:
    left: dict[str, int] = {}
    chosen: list[str] = []
    for delivery_id, target in due:
        left.setdefault(target, room(target))
        if left[target] > 0 and len(chosen) < limit:
            left[target] -= 1
            chosen.append(delivery_id)
    return chosen


def _event(row: sa.RowMapping) -> Event:
    return Event(
        id=row["id"],
        type=EventType(row["type"]),
        workspace_id=row["workspace_id"],
        occurred_at=row["occurred_at"],
        data=row["data"],
        channels=tuple(row["channels"]),
    )


def _new_row(new: NewDelivery, now: datetime, due: datetime, give_up: datetime) -> dict[str, Any]:
    return msgspec.structs.asdict(new) | {
        "state": DeliveryState.PENDING.value,
        "attempts": 0,
        "created_at": now,
        "next_attempt_at": due,
        "give_up_at": give_up,
        "finished_at": None,
        "lease_token": 0,
        "history": [],
    }


def _delivery(row: sa.RowMapping) -> Delivery:
    held = {name: row[name] for name in _FIELDS}
    history = msgspec.convert(held["history"], list[Attempt])
    return Delivery(**(held | {"state": DeliveryState(held["state"]), "history": history}))


def _claimed(row: sa.RowMapping, webhook: Webhook | None, keys: tuple[bytes, ...] | None) -> Claimed:
    return Claimed(
        delivery=_delivery(row),
        body=bytes(row["body"]),
        token=row["lease_token"],
        give_up_at=row["give_up_at"],
        webhook=webhook,
        keys=keys,
    )
