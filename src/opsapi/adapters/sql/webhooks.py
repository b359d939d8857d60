"""Webhooks and their sealed secrets."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import insert_call
from opsapi.adapters.sql.deliveries import bury_waiting
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import webhook_deliveries, webhooks
from opsapi.adapters.sql.webhook_rows import SigningSecrets, webhook_of
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.webhooks.model import DisabledBecause, Webhook
from opsapi.webhooks.ports import WebhookPatch
from opsapi.workspaces.ports import Sealer

_C = webhooks.c
_EVER = datetime.min.replace(tzinfo=UTC)


class SqlWebhookStore:
    """Implements WebhookStore. Without a `sealer` no webhook can be added, and those that are there get nothing."""

    def __init__(self, database: Database, sealer: Sealer | None, clock: Clock) -> None:
        self._database = database
        self._secrets = SigningSecrets(sealer)
        self._clock = clock

    async def webhooks(self, *, after: str, limit: int) -> list[Webhook]:
        statement = sa.select(webhooks).where(_C.id > after).order_by(_C.id).limit(limit)
        async with self._database.read() as connection:
            return [webhook_of(row) for row in (await connection.execute(statement)).mappings()]

    async def webhook(self, webhook_id: str) -> Webhook | None:
        async with self._database.read() as connection:
            row = await _row(connection, webhook_id)
        return None if row is None else webhook_of(row)

    async def add(self, webhook: Webhook, secret: bytes, by: Call | System) -> None:
        row = msgspec.structs.asdict(webhook) | self._secrets.sealed(webhook.id, secret)
        async with self._database.write() as connection:
            await connection.execute(sa.insert(webhooks), row)
            await self._audit(connection, by, 201, webhook.id, f"for {', '.join(webhook.event_types) or 'all events'}")
        _commit(by)

    async def update(self, webhook_id: str, patch: WebhookPatch, by: Call | System) -> Webhook | None:
        now = self._clock.now()
        given = {name: value for name, value in msgspec.structs.asdict(patch).items() if value is not None}
        changes: dict[str, Any] = given | {"updated_at": now}
        if patch.enabled:
            changes |= {"disabled_because": None, "disabled_at": None, "failing_since": None}
        elif patch.enabled is False:
            changes |= {
                "disabled_because": sa.func.coalesce(_C.disabled_because, DisabledBecause.ASKED.value),
                "disabled_at": sa.func.coalesce(_C.disabled_at, sa.bindparam("since", now, _C.disabled_at.type)),
            }
        statement = sa.update(webhooks).where(_C.id == webhook_id).values(changes).returning(webhooks)
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
            if row is None:
                return None
            if patch.enabled is False:
                await bury_waiting(connection, webhook_id, now)
            await self._audit(connection, by, 200, webhook_id, f"changed {', '.join(sorted(given)) or 'nothing'}")
        _commit(by)
        return webhook_of(row)

    async def rotate(self, webhook_id: str, secret: bytes, until: datetime, by: Call | System) -> Webhook | None:
        changes = self._secrets.sealed(webhook_id, secret) | {
            "previous_secret": _C.secret,
            "previous_secret_key_id": _C.secret_key_id,
            "previous_secret_until": until,
            "updated_at": self._clock.now(),
        }
        statement = sa.update(webhooks).where(_C.id == webhook_id).values(changes).returning(webhooks)
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
            if row is None:
                return None
            await self._audit(connection, by, 200, webhook_id, "rotated the signing secret")
        _commit(by)
        return webhook_of(row)

    async def remove(self, webhook_id: str, by: Call | System) -> bool:
        async with self._database.write() as connection:
            gone = await connection.execute(sa.delete(webhooks).where(_C.id == webhook_id))
            if gone.rowcount != 1:
                return False
            await connection.execute(sa.delete(webhook_deliveries).where(webhook_deliveries.c.target == webhook_id))
            await self._audit(connection, by, 200, webhook_id, "deleted")
        _commit(by)
        return True

    async def reseal(self) -> int:
        if self._secrets.key_id is None:
            return 0
        changed = 0
        stale = sa.select(webhooks).where(_C.secret_key_id != self._secrets.key_id).with_for_update()
        async with self._database.write() as connection:
            for row in (await connection.execute(stale)).mappings().all():
                keys = self._secrets.keys(row, _EVER)
                if keys is None:
                    continue
                sealed = self._secrets.sealed(row["id"], keys[0])
                if len(keys) > 1:
                    previous = self._secrets.sealed(row["id"], keys[1])
                    sealed |= {f"previous_{name}": value for name, value in previous.items()}
                await connection.execute(sa.update(webhooks).where(_C.id == row["id"]).values(sealed))
                changed += 1
        return changed

    async def _audit(
        self, connection: AsyncConnection, by: Call | System, status: int, webhook_id: str, what: str
    ) -> None:
        now = self._clock.now()
        resource = f"webhook/{webhook_id}"
        await insert_call(connection, by, status, now=self._clock.monotonic(), at=now, resource=resource, reason=what)


async def _row(connection: AsyncConnection, webhook_id: str) -> sa.RowMapping | None:
    found: sa.RowMapping | None = (
        (await connection.execute(sa.select(webhooks).where(_C.id == webhook_id))).mappings().one_or_none()
    )
    return found


def _commit(by: Call | System) -> None:
    if isinstance(by, Call):
        by.audit.committed = True
