"""Runs the packaged Alembic migrations under a lock."""

import asyncio
import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine

from opsapi.kit.errors import DependencyUnavailable

_ADVISORY_LOCK = 0x6F70736170690001
"""Any number will do as long as it is ours: "opsapi" and a 1."""
_WAL_TRIES = 100
_WAL_PAUSE_SECONDS = 0.05


class SchemaIsNewer(Exception):
    """A later release has migrated this database; running this one on it could lose what it does not know."""

    def __init__(self, revision: str) -> None:
        super().__init__(f"the database is at revision {revision}, which this release does not know: run a newer one")
        self.revision = revision


def configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: sa.Connection) -> None:
    """Within a write transaction. SQLite's is exclusive already; PostgreSQL takes a lock that ends with it.

    Raises SchemaIsNewer.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    config = configuration()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise SchemaIsNewer(current)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def create_private(path: Path) -> None:
    """Makes the file readable by its owner alone, before SQLite makes it with the process' umask; an existing file
    keeps its mode. SQLite gives its side files the same one. Raises DependencyUnavailable."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise DependencyUnavailable("database", "its file cannot be opened or written") from error


async def enable_wal(engine: AsyncEngine) -> None:
    """WAL is a property of the file. SQLite's busy timeout does not cover the switch, so a twin's is waited for."""
    for attempt in range(_WAL_TRIES):
        try:
            async with engine.connect() as connection:
                # The switch is refused inside a transaction, and SQLAlchemy opens one: speak to the driver itself.
                raw = await connection.get_raw_connection()
                driver = raw.driver_connection
                assert driver is not None
                cursor = await driver.execute("PRAGMA journal_mode=WAL")
                mode = (await cursor.fetchone())[0]
                await cursor.close()
        except (exc.OperationalError, sqlite3.OperationalError) as error:
            if "locked" not in str(error):
                raise DependencyUnavailable("database", "its file cannot be opened or written") from error
        else:
            if mode == "wal":
                return
        if attempt + 1 < _WAL_TRIES:
            await asyncio.sleep(_WAL_PAUSE_SECONDS)
    raise DependencyUnavailable("database", "its file is locked by another process")
