"""Autoscaling is carried out by scaling's steps: what is measured here is that it stays autoscaling when it is taken
over, and that its event is told once."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.tables import outbox_events
from opsapi.kit.clock import SystemClock
from opsapi.operations.model import Outcome, State
from opsapi.operations.signals import Signals
from support.acting import SetClock
from support.autoscaling import AutoscaleStage
from support.mortal_worker import work_off
from support.remote_cluster import serving

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0


class StageOfNow(AutoscaleStage):
    """The ledger and its operations live in real time, as the workers do."""

    def arrange(self, **changes: object) -> None:
        self.clock = SetClock(SystemClock().now())
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        super().arrange(**changes)


async def run_worker(url: str, port: int, point: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.mortal_worker", url, str(port), point, env=environment
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("point", ["before:write_scale", "after:write_scale", "after:record", "before:_end"])
async def test_autoscaling_ends_well_writes_once_and_tells_once(
    database_url: str, database: Database, point: str
) -> None:
    stage = StageOfNow(database)
    stage.run()
    stage.measure(85.3, 85.3, 85.3)
    reply = await stage.autoscale()
    assert reply.operation_id is not None
    async with serving(stage.workloads) as port:
        assert await run_worker(database_url, port, point) == -signal.SIGKILL
        async with asyncio.timeout(_DEADLINE):
            await work_off(database_url, port, "never")
    ended = await stage.ledger.get(reply.operation_id)
    assert ended is not None
    assert (ended.action, ended.state, ended.outcome) == ("autoscale", State.COMPLETED, Outcome.CHANGED)
    assert stage.workloads.writes == [("web", 5)]
    async with database.read() as connection:
        told = (await connection.execute(sa.select(outbox_events.c.type))).scalars().all()
    assert told.count("internal.autoscale.triggered") == 1
