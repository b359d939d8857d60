"""The engine under load: the event loop's lag while 20 operations run, and claiming from a long queue.

The lag is how late a 5 ms timer fires in the process that works. The reference for claims is the same claim from a
queue of 100, so that the ratio says whether a queue of 10,000 slows it; EXPLAIN names the index that it uses.

    python -m benchmarks.engine_load [--queued 10000] [--engine sqlite|postgresql]
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
import uvloop
from benchmarks.engine import create_databases, empty, migrate, new_call, new_operation, private_postgres

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.operation_rows import new_operation as operation_row
from opsapi.adapters.sql.operation_rows import new_steps
from opsapi.adapters.sql.tables import operation_steps, operations
from opsapi.kit.clock import SystemClock
from opsapi.operations.execution import Execution
from opsapi.operations.procedures import Procedure, Procedures, StepDone, StepProcedure
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.operations.work import StepWork
from opsapi.operations.worker import Worker

RUNNING = 20
ROUNDS = 5
CLAIMS = 50
LEASE = timedelta(minutes=5)
GOAL_LAG_MS = 50.0
STEPS = ("one", "two", "three")


async def step(work: StepWork) -> StepDone:
    await work.intend({"set": 5})
    await work.record({"was": 3})
    return StepDone("done")


async def lag(url: str) -> tuple[float, float]:
    """p50 and p99 in ms of a timer's delay, while 20 operations with an effect in each step run at once."""
    clock, signals, database = SystemClock(), Signals(), Database(url)
    ledger, settings, procedures = (
        SqlLedger(database, clock, signals),
        EngineSettings(concurrency=RUNNING),
        Procedures(),
    )
    steps = tuple(StepProcedure(name, step, timedelta(seconds=1)) for name in STEPS)
    procedures.register(Procedure("bench", steps, timedelta(hours=1)))
    for index in range(RUNNING * ROUNDS):
        await ledger.begin(new_operation(index), new_call(), locks={f"{index}"})
    worker = Worker(ledger, Execution(ledger, procedures, clock, settings), procedures, signals, clock, settings, "b")
    running = asyncio.create_task(worker.run())
    late: list[float] = []
    while (await ledger.depth()).queued or worker.busy:
        for _ in range(20):
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            late.append((time.perf_counter() - due) * 1000)
    worker.stop()
    await running
    await empty(database)
    await database.close()
    return statistics.median(late), statistics.quantiles(late, n=100)[98]


async def claims(url: str, queued: int) -> tuple[float, str]:
    """The median ms of a claim from a queue of so many, and the plan of its query."""
    clock, database = SystemClock(), Database(url)
    ledger = SqlLedger(database, clock, Signals())
    new = [new_operation(index) for index in range(queued)]
    async with database.write() as connection:
        rows = [operation_row(one, new_call(), clock.now()) | {"idempotency_id": None, "locks": []} for one in new]
        await connection.execute(sa.insert(operations), rows)
        await connection.execute(sa.insert(operation_steps), [row for one in new for row in new_steps(one)])
    taken = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        assert await ledger.claim("bench", LEASE, {("bench", 1)}) is not None
        taken.append((time.perf_counter() - began) * 1000)
    plan = await explain(database)
    await empty(database)
    await database.close()
    return statistics.median(taken), plan


async def explain(database: Database) -> str:
    query = "SELECT id FROM operations WHERE state = 'queued' ORDER BY created_at LIMIT 1"
    prefix = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    async with database.read() as connection:
        rows = (await connection.execute(sa.text(prefix + query))).all()
    return "ix_operations_claimable" if any("ix_operations_claimable" in str(row) for row in rows) else str(rows)


def measure(engine: str, url: str, queued: int) -> None:
    uvloop.run(migrate(url))
    middle, p99 = uvloop.run(lag(url))
    print(f"{engine:<11} lag while {RUNNING} run: p50 {middle:.1f} ms, p99 {p99:.1f} ms   goal {GOAL_LAG_MS:.0f} ms")
    few, _ = uvloop.run(claims(url, 100))
    many, plan = uvloop.run(claims(url, queued))
    print(
        f"{engine:<11} claim of 100 queued: {few:.2f} ms, of {queued}: {many:.2f} ms, ratio {many / few:.2f}; "
        f"uses {plan}"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--queued", type=int, default=10_000)
    options.add_argument("--engine", choices=["postgresql", "sqlite"], action="append")
    arguments = options.parse_args()
    wanted = arguments.engine or ["sqlite", "postgresql"]
    folder = Path(tempfile.mkdtemp(prefix="opsapi-bench-", dir="/tmp"))
    try:
        if "sqlite" in wanted:
            measure("sqlite", f"sqlite:///{folder / 'engine.db'}", arguments.queued)
        if "postgresql" in wanted:
            with private_postgres(folder) as socket:
                uvloop.run(create_databases(socket))
                measure("postgresql", f"postgresql://postgres@/engine?host={socket}", arguments.queued)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
