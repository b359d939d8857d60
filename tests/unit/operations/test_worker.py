"""The worker: claims, keeps its leases, gives way, and stops without losing anything."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.tables import operations
from opsapi.kit.clock import SystemClock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import LeaseLost, StepFailed
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, Outcome, State, StepState, Undo, UndoState
from opsapi.operations.ports import OperationFilter
from opsapi.operations.procedures import Procedure, Procedures, StepDone, StepProcedure
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.operations.work import StepWork
from opsapi.operations.worker import Worker
from support.acting import SetClock, make_call, make_new_operation

QUICK = EngineSettings(lease_seconds=0.3, poll_seconds=0.02, backoff_seconds=0.01, drain_seconds=0.05)


class Yard:
    """A worker over steps that the test writes."""

    def __init__(self, database: Database, settings: EngineSettings = QUICK) -> None:
        self.signals = Signals()
        self.ledger = SqlLedger(database, SystemClock(), self.signals)
        self.database = database
        self.settings = settings
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.cancelled = False
        self.tracks: list[str] = []

    async def one(self, work: StepWork) -> StepDone:
        self.tracks.append("one")
        self.entered.set()
        try:
            await self.leave.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return StepDone("one is done", outcome=Outcome.CHANGED)

    async def two(self, work: StepWork) -> StepDone:
        self.tracks.append("two")
        return StepDone("two is done", result={"two": True})

    def worker(self) -> Worker:
        steps = (
            StepProcedure("one", self.one, timedelta(seconds=1)),
            StepProcedure("two", self.two, timedelta(seconds=1)),
        )
        procedures = Procedures()
        procedures.register(Procedure("scale", steps, timedelta(hours=1)))
        execution = Execution(self.ledger, procedures, SystemClock(), self.settings)
        return Worker(self.ledger, execution, procedures, self.signals, SystemClock(), self.settings)

    async def begin(self, resource: str = "app-1") -> str:
        return (await self.ledger.begin(make_new_operation(resource), make_call(), locks={resource})).id

    async def ended(self, operation_id: str) -> Operation:
        async with asyncio.timeout(20):
            while True:
                held = await self.ledger.get(operation_id)
                assert held is not None
                if held.state.final:
                    return held
                await asyncio.sleep(0.01)


@pytest.fixture
def yard(file_database: Database) -> Yard:
    return Yard(file_database)


async def test_a_queued_operation_is_carried_out_without_waiting_for_a_poll(file_database: Database) -> None:
    yard = Yard(file_database, EngineSettings(poll_seconds=3600))
    yard.leave.set()
    worker = yard.worker()
    running = asyncio.create_task(worker.run())
    first = await yard.begin()
    done = await yard.ended(first)
    assert (done.state, done.outcome, done.result) == (State.COMPLETED, Outcome.CHANGED, {"two": True})
    assert [step.message for step in done.steps] == ["one is done", "two is done"]
    worker.stop()
    await running


async def test_a_long_step_keeps_its_lease(yard: Yard) -> None:
    worker = yard.worker()
    running = asyncio.create_task(worker.run())
    operation_id = await yard.begin()
    await yard.entered.wait()
    rival = yard.worker()
    rivalling = asyncio.create_task(rival.run())
    renewed = await _lease_changes(yard, operation_id, 3)
    yard.leave.set()
    done = await yard.ended(operation_id)
    assert renewed >= 3
    assert (done.attempts, yard.tracks) == (1, ["one", "two"])
    for each in (worker, rival):
        each.stop()
    await asyncio.gather(running, rivalling)


async def _lease_changes(yard: Yard, operation_id: str, wanted: int) -> int:
    """Waits until the lease was prolonged so many times."""
    statement = sa.select(operations.c.lease_expires_at).where(operations.c.id == operation_id)
    seen: set[object] = set()
    async with asyncio.timeout(20):
        while len(seen) <= wanted:
            async with yard.database.read() as connection:
                seen.add((await connection.execute(statement)).scalar_one())
            await asyncio.sleep(0.01)
    return len(seen) - 1


async def test_a_stopping_worker_hands_over_what_does_not_end_in_time(yard: Yard) -> None:
    worker = yard.worker()
    running = asyncio.create_task(worker.run())
    operation_id = await yard.begin()
    await yard.entered.wait()
    worker.stop()
    await running
    assert yard.cancelled
    assert worker.busy == 0
    held = await yard.ledger.get(operation_id)
    assert held is not None
    assert held.state is State.RUNNING
    heir = await yard.ledger.claim("heir", timedelta(minutes=1), {("scale", 1)})
    assert heir is not None
    assert heir.taken_over


async def test_a_stopping_worker_lets_short_work_end(file_database: Database) -> None:
    yard = Yard(file_database, EngineSettings(poll_seconds=0.02, drain_seconds=20))
    worker = yard.worker()
    running = asyncio.create_task(worker.run())
    operation_id = await yard.begin()
    await yard.entered.wait()
    worker.stop()
    yard.leave.set()
    await running
    held = await yard.ledger.get(operation_id)
    assert held is not None
    assert held.state is State.COMPLETED


async def test_a_worker_whose_lease_was_taken_stops_its_step_and_writes_nothing(yard: Yard) -> None:
    worker = yard.worker()
    running = asyncio.create_task(worker.run())
    operation_id = await yard.begin()
    await yard.entered.wait()
    async with yard.database.write() as connection:
        await connection.execute(
            sa.update(operations).values(lease_token=99, lease_holder="heir", state=State.COMPLETED)
        )
    async with asyncio.timeout(20):
        while not yard.cancelled:
            await asyncio.sleep(0.01)
    worker.stop()
    await running
    held = await yard.ledger.get(operation_id)
    assert held is not None
    assert held.steps[0].state is StepState.IN_PROGRESS
    assert yard.tracks == ["one"]


async def test_several_operations_run_at_once_up_to_the_limit(file_database: Database) -> None:
    yard = Yard(file_database, EngineSettings(concurrency=3, poll_seconds=0.02))
    ids = [await yard.begin(f"app-{i}") for i in range(5)]
    worker = yard.worker()
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while len(yard.tracks) < 3:
            await asyncio.sleep(0.01)
    assert worker.busy == 3
    depth = await yard.ledger.depth()
    assert (depth.queued, depth.running) == (2, 3)
    yard.leave.set()
    assert {(await yard.ended(operation_id)).state for operation_id in ids} == {State.COMPLETED}
    worker.stop()
    await running


@pytest.mark.parametrize(
    "failure", [DependencyUnavailable("database", "it cannot be reached"), RuntimeError("a fault of ours")]
)
async def test_a_claim_that_fails_does_not_end_the_worker(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    original = yard.ledger.claim
    failures = 0

    async def flaky(*arguments: object, **named: object) -> object:
        nonlocal failures
        failures += 1
        if failures <= 3:
            raise failure
        return await original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(yard.ledger, "claim", flaky)
    yard.leave.set()
    worker = yard.worker()
    running = asyncio.create_task(worker.run())
    assert (await yard.ended(await yard.begin())).state is State.COMPLETED
    worker.stop()
    await running


async def test_what_the_engine_itself_cannot_run_ends_after_some_tries(
    file_database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    yard = Yard(file_database, EngineSettings(lease_seconds=0.05, poll_seconds=0.02, step_attempts=3))
    worker = yard.worker()

    async def broken(claim: object, stop: object) -> None:
        raise RuntimeError("a fault of the engine")

    monkeypatch.setattr(worker._execution, "run", broken)
    running = asyncio.create_task(worker.run())
    ended = await yard.ended(await yard.begin())
    assert (ended.state, ended.attempts, ended.result) == (State.FAILED, 3, {"engine_failed": True})
    assert await yard.ledger.holder("app-1") is None
    assert "a fault of the engine" in caplog.text
    worker.stop()
    await running


async def test_steps_that_cannot_be_undone_are_named_and_needless_ones_are_not(file_database: Database) -> None:
    clock = SetClock()
    ledger = SqlLedger(file_database, clock, Signals())

    async def write(work: StepWork) -> StepDone:
        await work.intend({"n": 1})
        await work.record({"n": 1})
        return StepDone("written")

    async def fail(work: StepWork) -> StepDone:
        raise StepFailed("BROKEN", "it broke", at=3)

    async def needless(work: StepWork) -> Undo:
        return Undo(state=UndoState.NEEDLESS)

    hour = timedelta(hours=1)
    steps = (
        StepProcedure("one", write, hour),
        StepProcedure("two", write, hour, needless),
        StepProcedure("three", fail, hour),
    )
    procedures = Procedures()
    procedures.register(Procedure("scale", steps, hour))
    execution = Execution(ledger, procedures, clock, QUICK, clock.sleep)
    await ledger.begin(make_new_operation(steps=("one", "two", "three")), make_call(), locks={"a"})
    claim = await ledger.claim("w", hour, procedures.runnable())
    assert claim is not None
    await execution.run(claim)
    (held,) = await ledger.find(OperationFilter(workspaces=None))
    assert held.state is State.FAILED
    assert held.error is not None
    assert (held.error.code, held.error.details) == ("BROKEN", {"at": 3})
    assert held.result == {"undo_skipped": [{"step": "one", "reason": "this step cannot be undone"}]}


async def test_an_operation_asked_to_stop_ends_before_its_next_effect(file_database: Database) -> None:
    clock = SetClock()
    ledger = SqlLedger(file_database, clock, Signals())
    effects = 0

    async def write(work: StepWork) -> StepDone:
        nonlocal effects
        await work.intend({"n": 1})
        effects += 1
        return StepDone("written")

    hour = timedelta(hours=1)
    procedures = Procedures()
    procedures.register(Procedure("scale", (StepProcedure("one", write, hour),), hour))
    await ledger.begin(make_new_operation(steps=("one",)), make_call(), locks={"a"})
    async with file_database.write() as connection:
        await connection.execute(sa.update(operations).values(cancel_requested_at=clock.now()))
    claim = await ledger.claim("w", hour, procedures.runnable())
    assert claim is not None
    await Execution(ledger, procedures, clock, QUICK, clock.sleep).run(claim)
    (held,) = await ledger.find(OperationFilter(workspaces=None))
    assert (held.state, effects) == (State.CANCELLED, 0)
    assert await ledger.holder("a") is None


async def test_a_lost_lease_is_told_to_whoever_runs_the_operation(file_database: Database) -> None:
    clock = SetClock()
    ledger = SqlLedger(file_database, clock, Signals())
    hour = timedelta(hours=1)

    async def usurped(work: StepWork) -> StepDone:
        async with file_database.write() as connection:
            await connection.execute(sa.update(operations).values(lease_token=99))
        await work.intend({"n": 1})
        raise AssertionError("unreachable")

    procedures = Procedures()
    procedures.register(Procedure("scale", (StepProcedure("one", usurped, hour),), hour))
    await ledger.begin(make_new_operation(steps=("one",)), make_call(), locks={"a"})
    claim = await ledger.claim("w", hour, procedures.runnable())
    assert claim is not None
    with pytest.raises(LeaseLost):
        await Execution(ledger, procedures, clock, QUICK, clock.sleep).run(claim)


def test_a_procedure_is_registered_once() -> None:
    procedures = Procedures()
    procedure = Procedure("scale", (), timedelta(hours=1))
    procedures.register(procedure)
    with pytest.raises(ValueError, match="twice"):
        procedures.register(procedure)
    assert procedures.find("scale", 1) is procedure
    assert procedures.find("scale", 2) is None
