"""The database: connections, transactions, migrations at start, and its own figures for the health endpoint."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from opsapi.adapters.sql import one_hop
from opsapi.adapters.sql.migrating import create_private, enable_wal, upgrade
from opsapi.adapters.sql.timing import QueryTimes
from opsapi.adapters.sql.urls import normal_url, tls_of, without_tls_options
from opsapi.kit.clock import Clock, SystemClock
from opsapi.kit.errors import DependencyUnavailable

_BUSY_TIMEOUT_SECONDS = 15
_MIGRATION_SECONDS = 300
_STATEMENT_TIMEOUT_SECONDS = 30
_CONNECT_TIMEOUT_SECONDS = 5
_POOL_TIMEOUT_SECONDS = 5
_WRITE = "opsapi_write"


class PoolFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Connections of this process' pool; null where the pool does not tell."""

    active: int | None
    idle: int | None
    max: int | None


class DatabaseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe saw: `avg_query_ms` and `slow_queries` over the last five minutes, null without queries."""

    engine: str
    version: str
    round_trip_ms: float
    connections: PoolFigures
    avg_query_ms: float | None
    slow_queries: int


class Database:
    """One engine with its pool. Transactions are `read()` and `write()`; nothing runs outside one.

    SQLite runs in WAL mode with `synchronous=FULL`: an operation's intent must be on disk before its effect, and with
    NORMAL a power cut may take back the last commits. Writers queue in this process first, then on SQLite's own lock,
    which `BEGIN IMMEDIATE` takes at once, so that no transaction fails half-way on an upgrade from read to write.
    PostgreSQL runs READ COMMITTED: who depends on what was read locks the row (`FOR UPDATE`).
    """

    def __init__(self, url: str, *, pool_size: int = 10, clock: Clock | None = None, patient: bool = False) -> None:
        """`pool_size` connections at most; `patient` lifts the limits on how long a statement may take.

        Raises ValueError for a URL that names no database of ours.
        """
        self.url = normal_url(url)
        self.is_sqlite = self.url.drivername.startswith("sqlite")
        self._clock = clock or SystemClock()
        self._times = QueryTimes(self._clock)
        self._write_turn = asyncio.Lock()
        self._max = pool_size
        self._busy_seconds = _MIGRATION_SECONDS if patient else _BUSY_TIMEOUT_SECONDS
        self.engine = self._create(pool_size, patient=patient)
        self._listen()

    def _create(self, pool_size: int, *, patient: bool) -> AsyncEngine:
        connect_args: dict[str, Any]
        if self.is_sqlite:
            connect_args = {"isolation_level": None, "timeout": self._busy_seconds, "async_creator_fn": one_hop.connect}
        else:
            connect_args = {
                "ssl": tls_of(self.url),
                "timeout": _CONNECT_TIMEOUT_SECONDS,
                "command_timeout": None if patient else _STATEMENT_TIMEOUT_SECONDS,
                "server_settings": {
                    "application_name": "opsapi",
                    "timezone": "UTC",
                    "statement_timeout": "0" if patient else f"{_STATEMENT_TIMEOUT_SECONDS - 5}s",
                    "lock_timeout": "0" if patient else f"{_BUSY_TIMEOUT_SECONDS}s",
                    "idle_in_transaction_session_timeout": "60s",
                },
            }
        return create_async_engine(
            without_tls_options(self.url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_POOL_TIMEOUT_SECONDS,
            pool_pre_ping=not self.is_sqlite,
            connect_args=connect_args,
            json_serializer=_to_json,
            json_deserializer=msgspec.json.decode,
            hide_parameters=True,
        )

    def _listen(self) -> None:
        sync = self.engine.sync_engine
        if self.is_sqlite:
            event.listen(sync, "connect", partial(_prepare_sqlite, busy_seconds=self._busy_seconds))
            event.listen(sync, "begin", _begin_sqlite)
        self._times.listen(sync)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads: one consistent snapshot on SQLite, per statement on PostgreSQL.

        Raises DependencyUnavailable when the database cannot be reached or is too busy.
        """
        async with self._transaction(write=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits when the block ends and rolls back when it raises.

        Raises DependencyUnavailable as `read` does; `sqlalchemy.exc.IntegrityError` passes for the store to name.
        """
        if not self.is_sqlite:
            async with self._transaction(write=True) as connection:
                yield connection
            return
        async with self._write_turn, self._transaction(write=True) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, *, write: bool) -> AsyncIterator[AsyncConnection]:
        try:
            connection = await self.engine.connect()
        except Exception as error:
            # asyncpg raises its own classes here, past SQLAlchemy; whatever it is, there is no connection.
            raise _unavailable(error) from error
        try:
            connection = await connection.execution_options(**{_WRITE: write})
            async with connection.begin():
                yield connection
        except exc.IntegrityError:
            raise
        except (exc.OperationalError, exc.InterfaceError, OSError, TimeoutError) as error:
            raise _unavailable(error) from error
        except exc.DBAPIError as error:
            if error.connection_invalidated or sqlstate(error)[:2] in _AWAY or _is_contention(error):
                raise _unavailable(error) from error
            raise
        finally:
            await _release(connection)

    def insert(self, table: sa.Table) -> "postgresql.Insert | sqlite.Insert":
        """This engine's INSERT, with `on_conflict_do_nothing` and `on_conflict_do_update` (the same on both)."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    async def migrate(self) -> None:
        """Brings the schema to this version's, under a lock: of several starting processes one works, all end well.

        Raises SchemaIsNewer when a later release has already migrated this database.
        """
        # A twin's migration, and our own, may rightly take longer than any statement of the service.
        patient = Database(self.url.render_as_string(hide_password=False), pool_size=1, patient=True)
        try:
            if self.is_sqlite:
                await asyncio.to_thread(create_private, Path(str(self.url.database)))
                await enable_wal(patient.engine)
            async with patient.write() as connection:
                await connection.run_sync(upgrade)
        finally:
            await patient.close()

    async def probe(self) -> DatabaseFigures:
        """Asks the database for its version and times it. Raises DependencyUnavailable."""
        started = self._clock.monotonic()
        statement = "SELECT sqlite_version()" if self.is_sqlite else "SHOW server_version"
        async with self.read() as connection:
            version = (await connection.execute(sa.text(statement))).scalar_one()
        taken = (self._clock.monotonic() - started) * 1000
        average, slow = self._times.recent()
        return DatabaseFigures(
            engine="sqlite" if self.is_sqlite else "postgresql",
            version=str(version).split()[0],
            round_trip_ms=round(taken, 3),
            connections=self._connections(),
            avg_query_ms=average,
            slow_queries=slow,
        )

    def _connections(self) -> PoolFigures:
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return PoolFigures(active=None, idle=None, max=None)
        return PoolFigures(active=pool.checkedout(), idle=pool.checkedin(), max=self._max)

    async def close(self) -> None:
        await self.engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any, *, busy_seconds: int) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={busy_seconds * 1000}", "foreign_keys=ON", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_CONTENTION = {"40001", "40P01", "55P03", "57014"}
"""SQLSTATE of serialization failure, deadlock, lock timeout and statement timeout."""


_AWAY = {"08", "53", "57", "58"}
"""Classes of SQLSTATE: connection lost, out of resources, shut down by an operator, failing disk."""


def sqlstate(error: exc.DBAPIError) -> str:
    """PostgreSQL's five characters; empty on SQLite."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _is_contention(error: exc.DBAPIError) -> bool:
    return sqlstate(error) in _CONTENTION or (sqlstate(error) == "" and "locked" in str(error.orig))


def _unavailable(error: BaseException) -> DependencyUnavailable:
    # Only our own words: vendor text may name hosts, files and SQL. It stays in the chained cause, for the log.
    if isinstance(error, exc.TimeoutError):
        return DependencyUnavailable("database", "every connection is in use", retry_after=1)
    if isinstance(error, exc.DBAPIError) and _is_contention(error):
        return DependencyUnavailable("database", "too much is being written at once", retry_after=1)
    return DependencyUnavailable("database", "it cannot be reached")


async def _release(connection: AsyncConnection) -> None:
    try:
        await connection.close()
    except (exc.SQLAlchemyError, OSError):
        # The connection is gone already; what the caller waits for is the block's own outcome.
        with suppress(exc.SQLAlchemyError, OSError):
            await connection.invalidate()
