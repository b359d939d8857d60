"""The database crashes, is locked or has no room while operations run: none is lost, none runs twice, and no effect
is tried without its intent on disk."""

import asyncio
import resource
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import operations
from opsapi.kit.clock import SystemClock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, Outcome, State
from opsapi.operations.ports import OperationFilter
from opsapi.operations.settings import EngineSettings
from opsapi.operations.worker import Worker
from support.acting import SetClock, make_call
from support.database import PostgresServer
from support.engine import EXPIRED, Room, Steps, ending

QUICK = EngineSettings(lease_seconds=0.5, poll_seconds=0.05, backoff_seconds=0.05, drain_seconds=5)
DEADLINE = 60.0


class Now(SetClock):
    """The real time, as workers that run need it."""

    def now(self) -> datetime:
        return SystemClock().now()

    def monotonic(self) -> float:
        return SystemClock().monotonic()

    def advance(self, seconds: float) -> None:
        """It passes by itself."""


class Crew:
    """Replicas that work on one database and the same things; `began` are the operations that calls were told of."""

    def __init__(self, url: str, replicas: int = 2) -> None:
        self.steps = Steps()
        self.steps.nap = 0.05
        self.databases = [Database(url, pool_size=4) for _ in range(replicas)]
        self.rooms = [Room(database, clock=Now(), steps=self.steps) for database in self.databases]
        self.began: list[Operation] = []
        self.refused = 0

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        workers = [self._worker(room) for room in self.rooms]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            yield
        finally:
            for worker in workers:
                worker.stop()
            await asyncio.gather(*running)

    def _worker(self, room: Room) -> Worker:
        execution = Execution(room.ledger, room.procedures, room.clock, QUICK, gate=room.gate)
        return Worker(room.ledger, execution, room.procedures, room.signals, room.clock, QUICK)

    async def begin(self, resource: str) -> None:
        try:
            self.began.append(await self.rooms[0].begin(resource))
        except DependencyUnavailable:
            self.refused += 1

    async def until_ended(self) -> list[Operation]:
        """Every operation that there is."""
        statement = sa.select(operations.c.id)
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    async with self.databases[0].read() as connection:
                        ids = (await connection.execute(statement)).scalars().all()
                    held = [await self.rooms[0].ledger.get(one) for one in ids]
                    if all(one is not None and one.state.final for one in held):
                        return [one for one in held if one is not None]
                except DependencyUnavailable:
                    pass
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        for database in self.databases:
            await database.close()

    async def check_once(self, ended: list[Operation]) -> None:
        """Each ended well, had each effect once, and nothing that a call was told of is missing."""
        assert {one.id for one in self.began} <= {one.id for one in ended}
        assert len(ended) <= len(self.began) + self.refused
        for one in ended:
            assert ending(one) == (State.COMPLETED, Outcome.CHANGED, None)
            assert sorted(step for of, step in self.steps.done if of == one.id) == ["one", "two"]
            audited = [entry for entry in await self.rooms[0].audited(one) if not entry.endswith("effect found")]
            assert audited == ["POST", "scale completed"]
            assert await self.rooms[0].told(one) == ["operation.completed", "operation.started"]
        assert await self.rooms[0].locks() == []


@pytest.mark.slow
@pytest.mark.postgres
async def test_a_crash_of_postgresql_under_load_loses_nothing_and_doubles_nothing(postgres: PostgresServer) -> None:
    name = await postgres.create(migrated=True)
    # The suite's server does without; what is told as committed must be so here.
    await postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = on")
    crew = Crew(postgres.url(name))
    try:
        async with crew.working():
            await asyncio.gather(*(crew.begin(f"app-{i}") for i in range(20)))
            while len(crew.steps.done) < 8:
                await asyncio.sleep(0.01)
            load = asyncio.gather(*(crew.begin(f"more-{i}") for i in range(5)))
            await asyncio.to_thread(postgres.crash)
            await load
            assert len(crew.steps.done) < 40
            await crew.begin("while-away")
            assert crew.refused >= 1
            await asyncio.to_thread(postgres.start)
            ended = await crew.until_ended()
        assert len(ended) >= 20
        await crew.check_once(ended)
        assert max(one.attempts for one in ended) >= 2
    finally:
        await asyncio.to_thread(postgres.start)
        await crew.close()
        await postgres.empty(name)


_HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
held.execute("COMMIT")
"""


async def test_a_database_that_another_process_locks_for_a_while_stops_nothing_for_good(
    sqlite_url: str, sqlite_file: str
) -> None:
    crew = Crew(sqlite_url, replicas=1)
    try:
        async with crew.working():
            for i in range(3):
                await crew.begin(f"app-{i}")
            while len(crew.steps.done) < 2:
                await asyncio.sleep(0.01)
            holder = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _HOLD, sqlite_file, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            assert holder.stdout is not None
            assert await holder.stdout.readline() == b"held\n"
            await asyncio.sleep(2 * QUICK.lease_seconds)
            before = list(crew.steps.done)
            await asyncio.sleep(QUICK.lease_seconds)
            assert crew.steps.done == before
            await holder.communicate(b"")
            ended = await crew.until_ended()
        assert len(ended) == 3
        await crew.check_once(ended)
    finally:
        await crew.close()


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'opsapi.db')}"


@pytest.fixture
def sqlite_file(sqlite_url: str) -> str:
    return sqlite_url.removeprefix("sqlite:///")


class Disk:
    """What the database is kept on, which a test fills: for SQLite no file of this process may grow or be written
    (RLIMIT_FSIZE), PostgreSQL answers as where it cannot extend a file (SQLSTATE 53100)."""

    _REFUSE = (
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )
    _TABLES = ("operations", "operation_steps", "audit_entries", "outbox_events")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.full = False

    async def fill(self) -> None:
        self.full = True
        if self._database.is_sqlite:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._allowed[1]))
            return
        triggers = (
            f"CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION no_room()"
            for table in self._TABLES
        )
        await self._execute(self._REFUSE, *triggers)

    async def clear(self) -> None:
        self.full = False
        if self._database.is_sqlite:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._allowed)
        else:
            await self._execute("DROP FUNCTION IF EXISTS no_room() CASCADE")

    async def _execute(self, *statements: str) -> None:
        async with self._database.write() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))


@pytest.fixture
async def disk(database: Database) -> AsyncIterator[Disk]:
    kept = Disk(database)
    yield kept
    await kept.clear()


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database)


def fills_at(room: Room, disk: Disk, point: str) -> None:
    async def at(reached: str) -> None:
        if reached == point:
            room.steps.at = nothing
            await disk.fill()

    async def nothing(_reached: str) -> None:
        return None

    room.steps.at = at


@pytest.mark.parametrize(
    ("point", "effects", "found"),
    [("one:start", 0, False), ("one:applied", 1, True), ("one:recorded", 1, False), ("two:start", 1, False)],
)
async def test_without_room_for_its_intent_no_effect_is_tried(
    room: Room, disk: Disk, point: str, effects: int, found: bool
) -> None:
    begun = await room.begin()
    fills_at(room, disk, point)
    with pytest.raises(DependencyUnavailable) as refused:
        await room.execution.run(await room.claimed(lease=EXPIRED))
    assert refused.value.details.component == "database"  # type: ignore[attr-defined]
    assert len(room.steps.done) == effects
    with pytest.raises(DependencyUnavailable):
        await room.claim("heir")
    assert len(room.steps.done) == effects
    await disk.clear()
    await room.work("heir")
    ended = await room.ended(begun)
    assert ending(ended) == (State.COMPLETED, Outcome.CHANGED, None)
    assert room.steps.done == [(begun.id, "one"), (begun.id, "two")]
    assert await room.audited(begun) == ["POST", *(["one effect found"] if found else []), "scale completed"]


async def test_without_room_nothing_is_begun_and_the_caller_is_told_so(room: Room, disk: Disk) -> None:
    await disk.fill()
    call = make_call()
    with pytest.raises(DependencyUnavailable) as refused:
        await room.begin(call=call)
    assert refused.value.code == "DEPENDENCY_UNAVAILABLE"
    assert (call.audit.committed, call.audit.operation_id) == (False, None)
    await disk.clear()
    assert await room.locks() == []
    again = await room.begin()
    await room.work()
    assert ending(await room.ended(again)) == (State.COMPLETED, Outcome.CHANGED, None)
    assert len(await room.ledger.find(OperationFilter(workspaces=None))) == 1


async def test_a_full_sqlite_file_is_told_as_such_and_takes_up_again(sqlite_url: str) -> None:
    """By SQLite's own limit of pages, which it reports as it does a full disk."""
    database = Database(sqlite_url)
    room = Room(database)
    limit = [1]
    sa.event.listen(
        database.engine.sync_engine,
        "begin",
        lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {limit[0]}"),
    )
    try:
        with pytest.raises(DependencyUnavailable):
            await room.begin(parameters={"much": "x" * 100_000})
        limit[0] = 1_000_000
        begun = await room.begin(parameters={"much": "x" * 100_000})
        await room.work()
        assert ending(await room.ended(begun)) == (State.COMPLETED, Outcome.CHANGED, None)
    finally:
        await database.close()
