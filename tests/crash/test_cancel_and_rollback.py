"""Cancelling, undoing and deciding, at every moment and over a worker's death: done once, audited once, told once."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import operation_steps
from opsapi.kit.errors import DependencyUnavailable, InvalidState
from opsapi.kit.permissions import Permission
from opsapi.operations.errors import OperationInProgress
from opsapi.operations.model import Approval, Item, ItemState, Operation, Outcome, State, StepState, Undo, UndoState
from opsapi.operations.proposal import Proposal, plan_hash
from support.acting import NOON, make_call, make_caller
from support.engine import ACCOUNT, EXPIRED, OPERATOR, Died, Room, dies_at, ending


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database)


async def cancelled_at(room: Room, point: str) -> Operation:
    """Begun, worked on, and cancelled there."""
    begun = await room.begin()

    async def at(reached: str) -> None:
        if reached == point:
            await room.ledger.cancel(begun.id, make_call(make_caller(account_id="sa-person")))

    room.steps.at = at
    await room.work()
    return await room.ended(begun)


async def test_what_is_queued_is_cancelled_before_anybody_takes_it(room: Room) -> None:
    begun = await room.begin()
    await room.ledger.cancel(begun.id, make_call())
    assert await room.claim() is None
    assert ending(await room.ended(begun)) == (State.CANCELLED, None, "CANCELLED")
    assert await room.audited(begun) == ["POST", "POST", "scale cancelled"]
    assert await room.told(begun) == ["operation.failed"]
    with pytest.raises(InvalidState):
        await room.ledger.cancel(begun.id, make_call())
    assert await room.audited(begun) == ["POST", "POST", "scale cancelled"]


async def test_a_cancellation_before_an_effect_prevents_it(room: Room) -> None:
    ended = await cancelled_at(room, "one:start")
    assert ending(ended) == (State.CANCELLED, None, "CANCELLED")
    assert ended.error is not None
    assert ended.error.message == "Cancelled by sa-person"
    assert room.steps.done == []
    assert await room.audited(ended) == ["POST", "POST", "scale cancelled"]
    assert await room.told(ended) == ["operation.failed", "operation.started"]


@pytest.mark.parametrize("point", ["one:intended", "one:applied", "one:recorded"])
async def test_a_cancellation_around_an_effect_lets_it_end_and_begins_no_other(room: Room, point: str) -> None:
    ended = await cancelled_at(room, point)
    assert ending(ended) == (State.CANCELLED, Outcome.PARTIAL, "CANCELLED")
    assert room.steps.done == [(ended.id, "one")]
    assert ended.step("one").effect == {"of": "one"}
    assert await room.audited(ended) == ["POST", "POST", "scale cancelled"]
    assert await room.told(ended) == ["operation.failed", "operation.started"]


async def test_a_sleeping_step_wakes_to_its_cancellation(room: Room) -> None:
    room.steps.nap = 5.0
    begun = await room.begin()
    claim = await room.claimed()

    async def sleep(seconds: float) -> None:
        """As the worker's beat does while a step sleeps."""
        await room.ledger.cancel(begun.id, make_call())
        if await room.ledger.renew(claim, timedelta(minutes=1)):
            stop.set()

    stop = asyncio.Event()
    room.execution._sleep = sleep
    await room.execution.run(claim, stop)
    ended = await room.ended(begun)
    assert ending(ended) == (State.CANCELLED, Outcome.PARTIAL, "CANCELLED")
    assert ended.step("one").state is StepState.IN_PROGRESS
    assert room.steps.done == [(begun.id, "one")]


async def test_a_cancellation_of_a_failing_operation_keeps_the_first_reason(room: Room) -> None:
    room.steps.fails = "two"
    begun = await room.begin()

    async def at(reached: str) -> None:
        if reached == "two:undo":
            await room.ledger.cancel(begun.id, make_call())

    room.steps.at = at
    await room.work()
    ended = await room.ended(begun)
    assert ending(ended) == (State.ROLLED_BACK, Outcome.CHANGED, "NOT_READY")
    assert room.steps.applied == set()


async def completed(room: Room) -> Operation:
    begun = await room.begin()
    await room.work()
    ended = await room.ended(begun)
    assert ended.state is State.COMPLETED
    return ended


ROLLED_BACK_TOLD = ["operation.completed", "operation.failed", "operation.started"]


async def test_a_completed_operation_is_rolled_back_once(room: Room) -> None:
    done = await completed(room)
    await room.reopen(done)
    with pytest.raises(InvalidState):
        await room.reopen(done)
    await room.work()
    ended = await room.ended(done)
    assert ended.state is State.ROLLED_BACK
    assert ended.result == {"one": True, "two": True, "undone": ["two", "one"]}
    assert room.steps.undone == [(done.id, "two"), (done.id, "one")]
    assert await room.told(done) == ROLLED_BACK_TOLD
    assert await room.audited(done) == ["CLI", "POST", "scale completed", "scale rolled_back"]
    with pytest.raises(InvalidState):
        await room.reopen(done)


@pytest.mark.parametrize(
    "point", ["two:undo", "two:undo_intended", "two:undone", "one:undo", "one:undo_intended", "one:undone"]
)
async def test_a_rollback_that_was_killed_goes_on_and_undoes_nothing_twice(room: Room, point: str) -> None:
    done = await completed(room)
    await room.reopen(done)
    room.steps.at = dies_at(point)
    with pytest.raises(Died):
        await room.execution.run(await room.claimed(lease=EXPIRED))
    await room.work("heir")
    ended = await room.ended(done)
    assert ended.state is State.ROLLED_BACK
    assert room.steps.undone == [(done.id, "two"), (done.id, "one")]
    assert [step.undo.state for step in ended.steps if step.undo is not None] == [UndoState.UNDONE] * 2
    assert await room.told(done) == ROLLED_BACK_TOLD


async def test_an_undo_that_kills_every_worker_is_given_up_in_the_end(room: Room) -> None:
    room.steps.fails = "two"
    begun = await room.begin()

    async def deadly(reached: str) -> None:
        if reached == "two:undo":
            raise Died(reached)

    room.steps.at = deadly
    deaths = 0
    while (claim := await room.claim(lease=EXPIRED)) is not None:
        assert deaths < 50, "it comes back for ever"
        try:
            await room.execution.run(claim)
        except Died:
            deaths += 1
    ended = await room.ended(begun)
    assert ending(ended) == (State.FAILED, Outcome.PARTIAL, "NOT_READY")
    assert deaths == 11
    assert room.steps.undone == [(begun.id, "one")]


async def test_a_rollback_waits_for_no_one_and_is_refused_while_another_works_there(room: Room) -> None:
    done = await completed(room)
    other = await room.begin()
    with pytest.raises(OperationInProgress):
        await room.reopen(done)
    held = await room.ledger.get(done.id)
    assert held == done
    await room.ledger.cancel(other.id, OPERATOR)
    await room.reopen(done)
    await room.work()
    assert (await room.ended(done)).state is State.ROLLED_BACK


async def test_items_that_could_not_be_undone_are_tried_again(room: Room, database: Database) -> None:
    done = await completed(room)
    items = {
        "pod/a": Item(state=ItemState.DONE, effect={}, undo=Undo(state=UndoState.SKIPPED, reason="PAUSED")),
        "pod/b": Item(state=ItemState.DONE, effect={}, undo=Undo(state=UndoState.UNDONE)),
    }
    undo = Undo(state=UndoState.SKIPPED, reason="PAUSED")
    values = {"items": msgspec.to_builtins(items), "undo": msgspec.to_builtins(undo)}
    async with database.write() as connection:
        here = operation_steps.c.operation_id == done.id, operation_steps.c.position == 0
        await connection.execute(sa.update(operation_steps).where(*here).values(values))
    reopened = await room.reopen(done)
    first = reopened.steps[0]
    assert first.undo is None
    assert (first.items["pod/a"].undo, first.items["pod/b"].undo) == (None, Undo(state=UndoState.UNDONE))


WAITS: dict[str, Any] = {
    "approval": Approval(rules=("APPROVAL_REQUIRED",)),
    "approval_expires_at": NOON + timedelta(hours=1),
}


async def test_an_approval_while_another_holds_the_lock_changes_nothing(room: Room) -> None:
    asked = await room.begin(**WAITS)
    other = await room.begin()
    until = room.clock.now() + timedelta(days=1)
    with pytest.raises(OperationInProgress):
        await room.ledger.approve(asked.id, OPERATOR, admission=room.admission(), until=until)
    assert await room.told(asked) == ["approval.requested"]
    assert await room.audited(asked) == ["POST"]
    await room.ledger.cancel(other.id, OPERATOR)
    await room.ledger.approve(asked.id, OPERATOR, admission=room.admission(), until=until)
    await room.work()
    assert (await room.ended(asked)).state is State.COMPLETED
    assert await room.told(asked) == [
        "approval.decided",
        "approval.requested",
        "operation.completed",
        "operation.started",
    ]


async def test_what_nobody_decided_expires_once_on_two_replicas(room: Room, database: Database) -> None:
    asked = await room.begin(**WAITS)
    room.clock.advance(3600)
    twin = Room(database, clock=room.clock, steps=room.steps)
    expired = await asyncio.gather(*(one.ledger.expire(room.clock.now()) for one in (room, twin)))
    assert sum(expired) == 1
    assert ending(await room.ended(asked)) == (State.CANCELLED, None, "APPROVAL_EXPIRED")
    assert await room.told(asked) == ["approval.decided", "approval.requested", "operation.failed"]
    assert await room.audited(asked) == ["POST", "scale cancelled"]


class Plans:
    """What would be done: the same until `changed`; `away` counts down answers that a cluster does not give."""

    def __init__(self) -> None:
        self.intended = 5
        self.away = 0

    async def __call__(self, operation: Operation) -> Proposal:
        if self.away > 0:
            self.away -= 1
            raise DependencyUnavailable("kubernetes_api", "connection refused", workspace_id="ws-123")
        return self.proposal()

    def proposal(self) -> Proposal:
        return Proposal(
            action="scale", workspace_id="ws-123", application_id="app-1", resource_id="app-1", resource_uid="uid-1",
            permission=Permission("workspace:write"), parameters={}, plan={}, intended=self.intended,
            steps=("one", "two"), locks=frozenset(), ask=Room.ask("app-1", NOON),
        )  # fmt: skip


async def approved(room: Room, plans: Plans) -> Operation:
    asked = await room.begin(plan_hash=plan_hash(plans.proposal(), ACCOUNT), **WAITS)
    until = room.clock.now() + timedelta(days=1)
    return await room.ledger.approve(asked.id, OPERATOR, admission=room.admission(), until=until)


async def test_an_approved_plan_is_looked_at_again_even_where_the_first_worker_died(database: Database) -> None:
    plans = Plans()
    room = Room(database, replan=plans)
    asked = await approved(room, plans)
    await room.claimed(lease=EXPIRED)
    plans.intended = 6
    await room.work("heir")
    assert ending(await room.ended(asked)) == (State.CANCELLED, None, "STALE_PLAN")
    assert room.steps.done == []


async def test_an_approved_operation_that_has_begun_goes_on_though_its_own_effect_changed_the_plan(
    database: Database,
) -> None:
    plans = Plans()
    room = Room(database, replan=plans)
    asked = await approved(room, plans)
    room.steps.at = dies_at("one:intended")
    with pytest.raises(Died):
        await room.execution.run(await room.claimed(lease=EXPIRED))
    plans.intended = 6
    await room.work("heir")
    assert ending(await room.ended(asked)) == (State.COMPLETED, Outcome.CHANGED, None)


@pytest.mark.parametrize(("away", "end"), [(3, (State.COMPLETED, Outcome.CHANGED, None)), (9, None)])
async def test_an_approved_plan_that_cannot_be_looked_at_waits_for_the_cluster(
    database: Database, away: int, end: object
) -> None:
    plans = Plans()
    room = Room(database, replan=plans)
    asked = await approved(room, plans)
    plans.away = away
    await room.work()
    assert room.ledger.pauses_taken == [1.0, 2.0, 4.0]
    assert ending(await room.ended(asked)) == (end or (State.CANCELLED, None, "DEPENDENCY_UNAVAILABLE"))
