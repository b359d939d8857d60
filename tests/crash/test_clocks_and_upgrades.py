"""Clocks that jump or disagree, releases that know other versions, and a queue of ten thousand."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.tables import operation_steps, operations
from opsapi.kit.errors import InvalidState, PolicyDenied, PolicyRule
from opsapi.operations.errors import LeaseLost
from opsapi.operations.model import Approval, Failure, Outcome, State
from opsapi.policy.admission import Admission
from opsapi.policy.model import Limits, PolicySettings
from support.acting import NOON, SetClock
from support.engine import EXPIRED, LEASE, OPERATOR, Died, Room, dies_at, ending

HOUR = 3600.0


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database)


@pytest.fixture
async def twin(room: Room, database_url: str) -> AsyncIterator[Room]:
    """Another replica, with a clock of its own, on the same database and acting on the same things."""
    opened = Database(database_url)
    yield Room(opened, clock=SetClock(), steps=room.steps)
    await opened.close()


def jumps(room: Room, point: str, seconds: float) -> None:
    async def at(reached: str) -> None:
        if reached == point:
            room.clock.advance(seconds)

    room.steps.at = at


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
@pytest.mark.parametrize("point", ["one:start", "one:intended", "one:applied", "two:start"])
async def test_a_jump_of_the_clock_does_nothing_twice(room: Room, twin: Room, point: str, seconds: float) -> None:
    """Where leases go by this clock, one that leaps ahead ends them: another takes over, and the first writes nothing
    more."""
    begun = await room.begin()
    claim = await room.claimed()
    jumps(room, point, seconds)
    running = asyncio.create_task(room.execution.run(claim))
    await asyncio.wait({running})
    lost = isinstance(running.exception(), LeaseLost)
    twin.clock.at = room.clock.at
    await twin.work("heir")
    assert ending(await room.ended(begun)) == (State.COMPLETED, Outcome.CHANGED, None)
    assert room.steps.done == [(begun.id, "one"), (begun.id, "two")]
    assert not lost
    assert await room.audited(begun) == ["POST", "scale completed"]


async def test_whose_lease_ended_with_the_clocks_leap_is_fenced_off(room: Room, twin: Room) -> None:
    """SQLite: the leap lets the other in at once; PostgreSQL goes by its own clock, and lets nobody in."""
    begun = await room.begin()
    claim = await room.claimed()
    leapt = False

    async def leap(reached: str) -> None:
        nonlocal leapt
        if reached == "one:intended" and not leapt:
            leapt = True
            for one in (room, twin):
                one.clock.advance(HOUR)
            await twin.work("heir")

    room.steps.at = leap
    running = asyncio.create_task(room.execution.run(claim))
    await asyncio.wait({running})
    overtaken = isinstance(running.exception(), LeaseLost)
    ended = await room.ended(begun)
    assert ending(ended) == (State.COMPLETED, Outcome.CHANGED, None)
    assert room.steps.done == [(begun.id, "one"), (begun.id, "two")]
    sqlite = room.database.is_sqlite
    assert (overtaken, room.steps.refused, ended.attempts) == ((True, 1, 2) if sqlite else (False, 0, 1))
    assert await room.audited(begun) == ["POST", "scale completed"]
    assert await room.told(begun) == ["operation.completed", "operation.started"]


async def test_a_dead_workers_lease_is_no_longer_when_the_clock_was_set_back(room: Room) -> None:
    begun = await room.begin()
    room.steps.at = dies_at("one:applied")
    with pytest.raises(Died):
        await room.execution.run(await room.claimed())
    later = timedelta(hours=1)
    async with room.database.write() as connection:
        # On PostgreSQL, whose clock is not ours to set, the lease is moved instead.
        row = operations.c
        until = (await connection.execute(sa.select(row.lease_expires_at))).scalar_one()
        await connection.execute(sa.update(operations).values(lease_expires_at=until + later))
    await room.work("heir")
    assert ending(await room.ended(begun)) == (State.COMPLETED, Outcome.CHANGED, None)
    assert room.steps.done == [(begun.id, "one"), (begun.id, "two")]


async def test_a_lease_that_others_set_longer_is_respected(room: Room) -> None:
    await room.begin()
    await room.claimed(lease=4 * LEASE - timedelta(seconds=5))
    assert await room.claim("rival") is None


@pytest.mark.postgres
async def test_what_is_put_off_is_put_off_by_the_clock_that_claims_go_by(room: Room) -> None:
    """A replica whose clock is years away does not put an operation off by years, nor not at all."""
    if room.database.is_sqlite:
        pytest.skip("on SQLite all processes share one clock")
    begun = await room.begin()
    claim = await room.claimed()
    room.clock.at = NOON + timedelta(days=36500)
    until = room.clock.now() + timedelta(seconds=30)
    failure = Failure(code="DEPENDENCY_UNAVAILABLE", message="away")
    await SqlLedger.postpone(room.ledger, claim, 0, failure, until)
    async with room.database.read() as connection:
        statement = sa.select(operations.c.not_before, sa.func.clock_timestamp()).where(operations.c.id == begun.id)
        until, now = (await connection.execute(statement)).one()
    assert timedelta(0) < until - now <= timedelta(seconds=30)


TWICE_AN_HOUR = PolicySettings(
    limits=Limits(
        changes_per_hour_account=2, changes_per_hour_workspace=100, cooldown_seconds=300, same_action_per_hour=100
    )
)


async def strictly(room: Room, resource: str) -> None:
    ask = room.ask(resource, room.clock.now())
    room.admission = lambda *a, **k: Admission(ask, TWICE_AN_HOUR)  # type: ignore[method-assign]
    await room.begin(resource)
    await room.work()


async def test_a_clock_set_back_gives_nobody_a_second_budget_and_no_shorter_cooldown(room: Room) -> None:
    await strictly(room, "app-1")
    room.clock.advance(-HOUR)
    with pytest.raises(PolicyDenied) as refused:
        await strictly(room, "app-1")
    assert refused.value.details.rule == PolicyRule.COOLDOWN  # type: ignore[attr-defined]
    await strictly(room, "app-2")
    with pytest.raises(PolicyDenied) as refused:
        await strictly(room, "app-3")
    assert refused.value.details.rule == PolicyRule.ACCOUNT_BUDGET  # type: ignore[attr-defined]


async def test_a_request_expires_when_the_clock_leaps_ahead_and_is_no_open_door_when_it_goes_back(room: Room) -> None:
    asked = await room.begin(
        approval=Approval(rules=("APPROVAL_REQUIRED",)), approval_expires_at=NOON + timedelta(minutes=30)
    )
    room.clock.advance(HOUR)
    with pytest.raises(InvalidState):
        await room.ledger.approve(asked.id, OPERATOR, admission=room.admission(), until=NOON)
    assert await room.ledger.expire(room.clock.now()) == 1
    room.clock.advance(-HOUR)
    with pytest.raises(InvalidState):
        await room.ledger.approve(asked.id, OPERATOR, admission=room.admission(), until=NOON)
    assert (await room.ended(asked)).state is State.CANCELLED


async def test_what_an_older_release_began_is_finished_by_one_that_still_knows_it(database: Database) -> None:
    old = Room(database, versions=(1,))
    left = await old.begin()
    old.steps.at = dies_at("one:applied")
    with pytest.raises(Died):
        await old.execution.run(await old.claimed(lease=EXPIRED))
    newest = Room(database, versions=(2,), steps=old.steps)
    await newest.work("too new")
    assert await newest.claim("too new") is None
    held = await newest.ledger.get(left.id)
    assert held is not None
    assert (held.state, held.attempts) == (State.RUNNING, 1)
    assert await newest.locks() == ["ws-123/app-1"]
    fresh = await newest.begin("app-2", version=2)
    between = Room(database, versions=(1, 2), steps=old.steps)
    await between.work("between")
    for one in (left, fresh):
        assert ending(await between.ended(one)) == (State.COMPLETED, Outcome.CHANGED, None)
    assert sorted(old.steps.done) == sorted((one.id, step) for one in (left, fresh) for step in ("one", "two"))


async def test_a_rollback_is_left_to_a_release_that_knows_its_procedure(database: Database) -> None:
    old = Room(database, versions=(1,))
    done = await old.begin()
    await old.work()
    newest = Room(database, versions=(2,), steps=old.steps)
    await newest.reopen(done)
    assert await newest.claim() is None
    await Room(database, versions=(1, 2), steps=old.steps).work()
    assert (await old.ended(done)).state is State.ROLLED_BACK


async def fill(database: Database, count: int) -> list[str]:
    """Queued operations by the thousand, a second apart, as begin writes them; their ids, the oldest first."""
    row = {
        "action": "scale", "version": 1, "state": "queued", "workspace_id": "ws-123", "parameters": {},
        "requested_by": "sa-agent", "requested_by_kind": "agent", "request_id": "req-1", "attempts": 0,
        "lease_token": 0,
    }  # fmt: skip
    step = {"position": 0, "name": "one", "state": "pending", "attempts": 0}
    rows = [
        row
        | {"id": f"op-{i:05}", "resource_id": f"app-{i}"}
        | dict.fromkeys(("created_at", "updated_at"), NOON + timedelta(seconds=i))
        for i in range(count)
    ]
    async with database.write() as connection:
        for start in range(0, count, 1000):
            part = rows[start : start + 1000]
            await connection.execute(sa.insert(operations), part)
            await connection.execute(sa.insert(operation_steps), [step | {"operation_id": one["id"]} for one in part])
    async with database.write() as connection:
        await connection.execute(sa.text("ANALYZE operations"))
    return [str(one["id"]) for one in rows]


async def plans(database: Database, room: Room) -> list[str]:
    """How the database carries out what a claim looks for, each look as one text."""
    seen: list[tuple[str, object]] = []

    def keep(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if "FROM operations" in statement and "ORDER BY" in statement and "LIMIT" in statement:
            seen.append((statement, parameters))

    sync = database.engine.sync_engine
    sa.event.listen(sync, "before_cursor_execute", keep)
    await room.claimed()
    sa.event.remove(sync, "before_cursor_execute", keep)
    word = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    found = []
    async with database.write() as connection:
        for statement, parameters in seen:
            rows = await connection.exec_driver_sql(word + statement, parameters)  # type: ignore[arg-type]
            found.append(" / ".join(str(row[-1]) for row in rows))
    return found


@pytest.mark.slow
async def test_ten_thousand_that_wait_are_claimed_along_the_index(room: Room, database: Database) -> None:
    waiting = await fill(database, 10_000)
    looks = await plans(database, room)
    assert len(looks) >= 2
    for plan in looks:
        assert "ix_operations_claimable" in plan
        assert "Sort" not in plan
        assert "TEMP B-TREE" not in plan
    taken = [(await room.claimed()).operation.id for _ in range(50)]
    assert taken == waiting[1:51]
    # Those that run do not come between: their leases hold.
    looks = await plans(database, room)
    assert all("ix_operations_claimable" in plan and "Sort" not in plan and "TEMP" not in plan for plan in looks)
