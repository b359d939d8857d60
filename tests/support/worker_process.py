"""`support.mortal_worker` as a process of its own, and what the ledger says of who works."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import operations

TESTS = Path(__file__).parents[1]
DEADLINE = 60.0


@asynccontextmanager
async def worker_process(url: str, port: int, point: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Gone at the end, whatever it was doing."""
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.mortal_worker", url, str(port), point, *options, env=environment
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def end_of(process: asyncio.subprocess.Process) -> int:
    """Its exit status, negative for a signal."""
    async with asyncio.timeout(DEADLINE):
        return await process.wait()


async def until_stopped(process: asyncio.subprocess.Process) -> None:
    """By a SIGSTOP, as Linux tells."""
    async with asyncio.timeout(DEADLINE):
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert process.returncode is None
            await asyncio.sleep(0.01)


class Held:
    """Who holds an operation, under which claim, and until when."""

    def __init__(self, holder: str | None, token: int, until: datetime | None) -> None:
        self.holder = holder
        self.token = token
        self.until = until

    @property
    def claim(self) -> tuple[str | None, int]:
        return self.holder, self.token


async def held_by(database: Database, operation_id: str) -> Held:
    row = operations.c
    statement = sa.select(row.lease_holder, row.lease_token, row.lease_expires_at).where(row.id == operation_id)
    async with database.read() as connection:
        return Held(*(await connection.execute(statement)).one())


async def until_held(database: Database, operation_id: str, token: int = 1) -> Held:
    """As soon as somebody has claimed it so many times."""
    async with asyncio.timeout(DEADLINE):
        while (held := await held_by(database, operation_id)).token < token:
            await asyncio.sleep(0.01)
    return held
