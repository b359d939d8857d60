"""Answers kept by Idempotency-Key."""

import hashlib
from datetime import timedelta

import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import idempotency_keys
from opsapi.kit.clock import Clock
from opsapi.kit.idempotency import Claimed, InProgress, Reused, StoredAnswer
from opsapi.kit.ids import new_id

KEPT = timedelta(hours=24)
CLAIM = timedelta(seconds=60)
"""After which a claim counts as its dead owner's."""
_PURGE = 1000


def key_id(*parts: str) -> str:
    """Of account, method, path and key; an operation begun under a key carries it too."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode(errors="surrogatepass")
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.hexdigest()


class SqlIdempotencyStore:
    """Implements kit's IdempotencyStore. A claim that was taken over has another id, so its late owner's answer is
    not kept."""

    def __init__(self, database: Database, clock: Clock, *, claim: timedelta = CLAIM) -> None:
        """`claim`: must be longer than any request may run."""
        self._database = database
        self._clock = clock
        self._claim = claim

    async def claim(
        self, account_id: str, method: str, path: str, key: str, fingerprint: bytes
    ) -> Claimed | InProgress | Reused | StoredAnswer:
        while True:
            claimed = await self._try(account_id, key_id(account_id, method, path, key), fingerprint)
            if claimed is not None:
                return claimed

    async def _try(
        self, account_id: str, key_id: str, fingerprint: bytes
    ) -> Claimed | InProgress | Reused | StoredAnswer | None:
        """None where the row that was in the way is gone again: its owner abandoned it in between."""
        columns, claim_id, now = idempotency_keys.c, new_id("claim"), self._clock.now()
        fresh = {
            "id": key_id,
            "account_id": account_id,
            "fingerprint": fingerprint,
            "claim_id": claim_id,
            "claimed_until": now + self._claim,
            "expires_at": now + KEPT,
            "status": None,
            "headers": None,
            "body": None,
        }
        async with self._database.write() as connection:
            inserted = await connection.execute(
                self._database.insert(idempotency_keys).values(fresh).on_conflict_do_nothing(index_elements=["id"])
            )
            if inserted.rowcount == 1:
                return Claimed(claim_id)
            query = sa.select(idempotency_keys).where(columns.id == key_id).with_for_update()
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            if row.expires_at > now:
                if bytes(row.fingerprint) != fingerprint:
                    return Reused()
                if row.status is not None:
                    return StoredAnswer(status=row.status, headers=row.headers, body=bytes(row.body))
                if row.claimed_until > now:
                    return InProgress()
            await connection.execute(sa.update(idempotency_keys).where(columns.id == key_id).values(fresh))
            return Claimed(claim_id)

    async def finish(self, claim_id: str, answer: StoredAnswer) -> None:
        kept = {"status": answer.status, "headers": answer.headers, "body": answer.body}
        columns = idempotency_keys.c
        async with self._database.write() as connection:
            await connection.execute(
                sa.update(idempotency_keys).where(columns.claim_id == claim_id, columns.status.is_(None)).values(kept)
            )

    async def abandon(self, claim_id: str) -> None:
        columns = idempotency_keys.c
        async with self._database.write() as connection:
            await connection.execute(
                sa.delete(idempotency_keys).where(columns.claim_id == claim_id, columns.status.is_(None))
            )

    async def purge(self) -> int:
        """Deletes keys past their day, a thousand at most a transaction; returns how many. For a timer."""
        columns = idempotency_keys.c
        total = 0
        while True:
            old = sa.select(columns.id).where(columns.expires_at <= self._clock.now()).limit(_PURGE)
            async with self._database.write() as connection:
                deleted = await connection.execute(sa.delete(idempotency_keys).where(columns.id.in_(old)))
            total += deleted.rowcount
            if deleted.rowcount < _PURGE:
                return total
