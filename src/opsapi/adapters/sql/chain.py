"""The audit chain's rows."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import ENTRY_COLUMNS, entry_of
from opsapi.adapters.sql.bulk import DriverStatement
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.leases import Leases, check_lease
from opsapi.adapters.sql.tables import audit_chain, audit_checkpoints, audit_entries
from opsapi.audit.chain import GENESIS, ChainedEntry, ChainHead, Checkpoint, Link
from opsapi.audit.model import AuditEntry
from opsapi.audit.ports import Lease
from opsapi.kit.clock import Clock

_CHECKPOINTS = 10_000


class SqlChainStore:
    """Numbers are given here, by the one holder of the head's row, not by a sequence: a row that becomes visible late
    simply gets a later number, and there are no gaps but those that somebody made."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._leases = Leases(database, clock)
        columns = audit_entries.c
        link = sa.update(audit_entries).where(columns.id == sa.bindparam("entry_id"), columns.seq.is_(None))
        self._link = DriverStatement(database, link, [columns.seq, columns.mac, columns.key_id], ["entry_id"])

    async def acquire(self, name: str, holder: str, ttl: timedelta) -> Lease | None:
        return await self._leases.acquire(name, holder, ttl)

    async def release(self, lease: Lease) -> None:
        await self._leases.release(lease)

    async def append(
        self, lease: Lease, link: Callable[[ChainHead, Sequence[AuditEntry]], list[Link]], limit: int
    ) -> tuple[ChainHead, int]:
        waiting = sa.select(*ENTRY_COLUMNS).where(audit_entries.c.seq.is_(None))
        async with self._database.read() as connection:
            if (await connection.execute(waiting.limit(1))).first() is None:
                return await _head(connection), 0
        async with self._database.write() as connection:
            await check_lease(connection, lease)
            await connection.execute(
                self._database.insert(audit_chain).on_conflict_do_nothing(index_elements=["id"]),
                {"id": 1, "seq": 0, "mac": GENESIS},
            )
            head = await _head(connection, lock=True)
            oldest = waiting.order_by(audit_entries.c.at, audit_entries.c.id).limit(limit)
            links = link(head, [entry_of(row) for row in await connection.execute(oldest)])
            if links:
                rows = [[one.seq, one.mac, one.key_id, one.entry_id] for one in links]
                await self._link.execute(connection, rows)
                head = ChainHead(links[-1].seq, links[-1].mac)
                await connection.execute(sa.update(audit_chain).values(seq=head.seq, mac=head.mac))
            return head, len(links)

    async def head(self) -> ChainHead:
        async with self._database.read() as connection:
            return await _head(connection)

    async def chained(self, after: int, limit: int) -> list[ChainedEntry]:
        columns = audit_entries.c
        query = (
            sa.select(*ENTRY_COLUMNS, columns.seq, columns.mac, columns.key_id)
            .where(columns.seq > after)
            .order_by(columns.seq)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [
                # Whoever tampers may leave nulls behind: such a row has no valid MAC, and is told so.
                ChainedEntry(entry=entry_of(row), seq=row[-3], mac=row[-2] or b"", key_id=row[-1] or "")
                for row in await connection.execute(query)
            ]

    async def unchained(self, before: datetime) -> int:
        query = (
            sa.select(sa.func.count())
            .select_from(audit_entries)
            .where(audit_entries.c.seq.is_(None), audit_entries.c.at < before)
        )
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def add_checkpoint(self, mark: Checkpoint) -> None:
        row = {"seq": mark.seq, "mac": mark.mac, "key_id": mark.key_id, "at": mark.at, "signature": mark.signature}
        async with self._database.write() as connection:
            await connection.execute(
                self._database.insert(audit_checkpoints).on_conflict_do_nothing(index_elements=["seq"]), row
            )

    async def checkpoints(self) -> list[Checkpoint]:
        """The newest ten thousand: a week's, at one a minute. All of them are where they were exported to."""
        return await self._marks(_CHECKPOINTS)

    async def last_checkpoint(self) -> Checkpoint | None:
        return next(iter(await self._marks(1)), None)

    async def _marks(self, limit: int) -> list[Checkpoint]:
        query = sa.select(audit_checkpoints).order_by(audit_checkpoints.c.seq.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_mark(row) for row in await connection.execute(query)]


def _mark(row: Any) -> Checkpoint:
    return Checkpoint(seq=row.seq, mac=row.mac, key_id=row.key_id, at=row.at, signature=row.signature)


async def _head(connection: AsyncConnection, *, lock: bool = False) -> ChainHead:
    query = sa.select(audit_chain.c.seq, audit_chain.c.mac)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return ChainHead() if row is None else ChainHead(row.seq, row.mac)
