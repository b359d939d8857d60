"""The engine on the real ledger, on SQLite."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from opsapi.adapters.sql.engine import Database
from support.database import sqlite_template

__all__ = ["file_database", "sqlite_template"]


@pytest.fixture
async def file_database(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    await database.close()
