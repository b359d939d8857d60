"""Leases: one holder at a time, by wall time, with a token that fences late writers off."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import leases
from opsapi.audit.ports import Lease, LeaseLost
from opsapi.kit.clock import Clock

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""A released lease's end: in the past by every replica's clock."""


class Leases:
    """Clocks of replicas should agree within a fraction of the lease; where they do not, the fencing token still
    keeps two holders from both writing."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def acquire(self, name: str, holder: str, ttl: timedelta) -> Lease | None:
        """Takes, renews, or keeps the lease (it is written again only in the second half of its life)."""
        async with self._database.read() as connection:
            held = await _read(connection, name)
        now = self._clock.now()
        if held is not None and held.expires_at > now:
            if held.holder != holder:
                return None
            if held.expires_at - now > ttl / 2:
                return held
        return await self._take(name, holder, ttl)

    async def _take(self, name: str, holder: str, ttl: timedelta) -> Lease | None:
        async with self._database.write() as connection:
            first = {"name": name, "holder": "", "token": 0, "expires_at": self._clock.now() - ttl}
            await connection.execute(
                self._database.insert(leases).on_conflict_do_nothing(index_elements=["name"]), first
            )
            held = await _read(connection, name, lock=True)
            assert held is not None
            now = self._clock.now()
            alive = held.expires_at > now
            if alive and held.holder != holder:
                return None
            token = held.token if alive else held.token + 1
            taken = Lease(name=name, holder=holder, token=token, expires_at=now + ttl)
            await connection.execute(
                sa.update(leases)
                .where(leases.c.name == name)
                .values(holder=holder, token=token, expires_at=taken.expires_at)
            )
            return taken

    async def release(self, lease: Lease) -> None:
        """Frees it for the next one at once; the token stays, so that the next one's is higher."""
        async with self._database.write() as connection:
            await connection.execute(
                sa.update(leases)
                .where(leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.token == lease.token)
                .values(expires_at=_NEVER)
            )


async def _read(connection: AsyncConnection, name: str, *, lock: bool = False) -> Lease | None:
    query = sa.select(leases).where(leases.c.name == name)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else Lease(name=row.name, holder=row.holder, token=row.token, expires_at=row.expires_at)


async def check_lease(connection: AsyncConnection, lease: Lease) -> None:
    """In a write transaction: nobody can take the lease before it ends. Raises LeaseLost.

    An expired lease that nobody took is still ours.
    """
    held = await _read(connection, lease.name, lock=True)
    if held is None or (held.holder, held.token) != (lease.holder, lease.token):
        raise LeaseLost(lease.name)
