"""Backups on fakes, with the real ledger on SQLite."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from opsapi.adapters.sql.engine import Database
from support.backing_up import BackupStage
from support.database import sqlite_template

__all__ = ["sqlite_template", "stage"]


@pytest.fixture
async def stage(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[BackupStage]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    made = BackupStage(database)
    made.put_application()
    yield made
    await database.close()
