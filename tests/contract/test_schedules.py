"""Schedules: due when they say, once a tick over replicas, as the account that made them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.schedules import SqlScheduleStore
from opsapi.kit.caller import Call, Caller
from opsapi.kit.errors import DependencyUnavailable, PolicyDenied, PolicyDetails, PolicyRule, ValidationFailed
from opsapi.operations.model import Operation
from opsapi.operations.ports import OperationFilter
from opsapi.operations.signals import Signals
from opsapi.playbooks.schedules.firing import ScheduleFiring
from opsapi.playbooks.schedules.model import Schedule, next_tick
from support.acting import NOON, SetClock, make_call, make_caller, make_new_operation

HOURLY = "0 * * * *"
START = NOON.replace(tzinfo=None)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def make_schedule(**changes: object) -> Schedule:
    held: dict[str, object] = {
        "id": "sch-1",
        "workspace_id": "ws-123",
        "operation": "backup_all",
        "parameters": {},
        "cron": HOURLY,
        "timezone": "UTC",
        "reason": "every hour",
        "enabled": True,
        "created_by": "sa-agent",
        "created_at": NOON,
        "next_at": NOON + timedelta(hours=1),
    }
    return Schedule(**(held | changes))  # type: ignore[arg-type]


class Replica:
    """One process that looks for what is due."""

    def __init__(self, database: Database, clock: SetClock) -> None:
        self.ledger = SqlLedger(database, clock, Signals())
        self.store = SqlScheduleStore(database, clock)
        self.caller: Caller | None = make_caller("workspace:admin@ws-123")
        self.refusal: Exception | None = None
        self.firing = ScheduleFiring(self.store, self.caller_of, self.begin, clock)

    async def caller_of(self, _account_id: str) -> Caller | None:
        return self.caller

    async def begin(self, call: Call, schedule: Schedule) -> Operation:
        if self.refusal is not None:
            raise self.refusal
        new = make_new_operation("ws-123", schedule.operation, application_id=None)
        return await self.ledger.begin(new, call, locks=())

    async def begun(self) -> list[Operation]:
        return await self.ledger.find(OperationFilter(workspaces=None))


@pytest.fixture
async def replica(database: Database, clock: SetClock) -> Replica:
    made = Replica(database, clock)
    await made.store.add(make_schedule(), make_call())
    return made


async def test_a_schedule_reads_back_as_it_was_made(replica: Replica) -> None:
    assert await replica.store.of_workspace("ws-123") == [make_schedule()]
    assert await replica.store.get("ws-123", "sch-1") == make_schedule()
    assert await replica.store.get("ws-other", "sch-1") is None


async def test_nothing_is_begun_before_its_time(replica: Replica, clock: SetClock) -> None:
    clock.advance(3599)
    assert await replica.firing.fire() == []
    clock.advance(1)
    (tick,) = await replica.firing.fire()
    (begun,) = await replica.begun()
    assert (tick.operation_id, tick.at, tick.next_at) == (
        begun.id,
        NOON + timedelta(hours=1),
        NOON + timedelta(hours=2),
    )
    assert await replica.firing.fire() == []
    held = await replica.store.get("ws-123", "sch-1")
    assert held is not None
    assert (held.last_operation_id, held.next_at) == (begun.id, NOON + timedelta(hours=2))


async def test_two_replicas_begin_one_operation_a_tick(database: Database, clock: SetClock, replica: Replica) -> None:
    other = Replica(database, clock)
    for _ in range(3):
        clock.advance(3600)
        await asyncio.gather(*(one.firing.fire() for one in (replica, other, replica, other)))
    assert len(await replica.begun()) == 3


async def test_a_replica_that_dies_after_beginning_leaves_a_tick_that_begins_nothing_more(
    replica: Replica, clock: SetClock
) -> None:
    clock.advance(3600)
    original = replica.store.ticked

    async def dies(*_: object) -> bool:
        raise DependencyUnavailable("database", "gone")

    replica.store.ticked = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(DependencyUnavailable):
        await replica.firing.fire()
    replica.store.ticked = original  # type: ignore[method-assign]
    (tick,) = await replica.firing.fire()
    assert [one.id for one in await replica.begun()] == [tick.operation_id]


async def test_what_is_refused_says_why_and_the_next_tick_comes(replica: Replica, clock: SetClock) -> None:
    clock.advance(3600)
    replica.refusal = PolicyDenied("Workspace ws-123 is paused", PolicyDetails(rule=PolicyRule.PAUSED))
    (tick,) = await replica.firing.fire()
    assert (tick.operation_id, tick.error and tick.error["code"]) == (None, "POLICY_DENIED")
    replica.refusal = None
    clock.advance(3600)
    (tick,) = await replica.firing.fire()
    assert tick.error is None


@pytest.mark.parametrize("caller", [None, make_caller("workspace:read@ws-123"), make_caller("workspace:admin@ws-9")])
async def test_it_acts_with_what_its_maker_may_do_by_then(
    replica: Replica, clock: SetClock, caller: Caller | None
) -> None:
    clock.advance(3600)
    replica.caller = caller
    (tick,) = await replica.firing.fire()
    assert tick.error is not None
    assert tick.error["code"] == "ACCOUNT_REVOKED"
    assert await replica.begun() == []


async def test_what_was_missed_for_long_is_let_pass(replica: Replica, clock: SetClock) -> None:
    clock.advance(3600 * 10 + 1800)
    (tick,) = await replica.firing.fire()
    assert tick.error is not None
    assert (tick.error["code"], tick.next_at) == ("MISSED", NOON + timedelta(hours=11))
    assert await replica.begun() == []


async def test_what_is_disabled_or_removed_is_not_begun(replica: Replica, clock: SetClock) -> None:
    assert await replica.store.replace(make_schedule(enabled=False), make_call())
    clock.advance(7200)
    assert await replica.firing.fire() == []
    assert await replica.store.remove("ws-123", "sch-1", make_call())
    assert not await replica.store.remove("ws-123", "sch-1", make_call())


@given(
    st.datetimes(timezones=st.just(UTC), min_value=START, max_value=START.replace(year=2027)),
    st.sampled_from(["UTC", "Europe/Vienna"]),
)
def test_the_next_tick_is_always_later_and_on_the_minute(moment: datetime, timezone: str) -> None:
    tick = next_tick("30 2 * * *", timezone, moment)
    assert tick > moment
    assert (tick.second, tick.microsecond) == (0, 0)


@pytest.mark.parametrize("cron", ["* * *", "61 * * * *", "0 0 31 2 *", "x", "@hourly", "* * * * * *"])
def test_what_is_never_due_is_refused(cron: str) -> None:
    with pytest.raises(ValidationFailed):
        next_tick(cron, "UTC", NOON)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ValidationFailed):
        next_tick(HOURLY, "Mars/Olympus", NOON)
