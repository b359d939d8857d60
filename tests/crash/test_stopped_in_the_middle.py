"""Rights, modes and pauses that change while an operation runs: it ends before its next effect, and says why."""

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.kit.errors import PolicyDenied
from opsapi.operations.model import Outcome, State, StepState, UndoState
from opsapi.workspaces.model import Mode
from support.acting import NOON
from support.engine import ACCOUNT, EXPIRED, OPERATOR, Died, Room, dies_at, ending
from support.inventory import FakeCluster, make_workspace

Change = Callable[[Room], Awaitable[None]]


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database)


async def revoked(room: Room) -> None:
    held = room.accounts.by_id[ACCOUNT]
    room.accounts.by_id[ACCOUNT] = msgspec.structs.replace(held, disabled_at=NOON)


async def deleted(room: Room) -> None:
    del room.accounts.by_id[ACCOUNT]


async def permission_taken(room: Room) -> None:
    held = room.accounts.by_id[ACCOUNT]
    room.accounts.by_id[ACCOUNT] = msgspec.structs.replace(held, permissions=["workspace:read"])


async def workspace_paused(room: Room) -> None:
    await room.ledger.pause("ws-123", OPERATOR, "an incident")


async def everything_paused(room: Room) -> None:
    await room.ledger.pause("*", OPERATOR, "an incident")


async def other_workspace_paused(room: Room) -> None:
    await room.ledger.pause("ws-9", OPERATOR, "an incident")


async def only_observed(room: Room) -> None:
    room.clusters.opened["ws-123"] = FakeCluster(make_workspace(mode=Mode.OBSERVE))


async def workspace_removed(room: Room) -> None:
    await room.clusters.close("ws-123")


CHANGES = [
    pytest.param(revoked, "ACCOUNT_REVOKED", id="revoked"),
    pytest.param(deleted, "ACCOUNT_REVOKED", id="deleted"),
    pytest.param(permission_taken, "INSUFFICIENT_INTERNAL_PERMISSIONS", id="permission"),
    pytest.param(workspace_paused, "PAUSED", id="paused"),
    pytest.param(everything_paused, "PAUSED", id="all-paused"),
    pytest.param(only_observed, "POLICY_DENIED", id="observe"),
    pytest.param(workspace_removed, "DEPENDENCY_UNAVAILABLE", id="removed"),
]


def once(room: Room, change: Change, point: str) -> None:
    async def at(reached: str) -> None:
        if reached == point:
            await change(room)

    room.steps.at = at


@pytest.mark.parametrize(("change", "code"), CHANGES)
async def test_nothing_more_is_done_once_the_right_to_act_is_gone(room: Room, change: Change, code: str) -> None:
    once(room, change, "one:recorded")
    begun = await room.begin()
    await room.work()
    ended = await room.ended(begun)
    assert ending(ended) == (State.CANCELLED, Outcome.PARTIAL, code)
    assert room.steps.done == [(begun.id, "one")]
    assert room.steps.undone == []
    assert await room.audited(begun) == ["POST", "scale cancelled"]
    assert await room.told(begun) == ["operation.failed", "operation.started"]


@pytest.mark.parametrize(("change", "code"), CHANGES)
async def test_what_had_no_effect_yet_ends_without_one(room: Room, change: Change, code: str) -> None:
    once(room, change, "one:start")
    begun = await room.begin()
    await room.work()
    ended = await room.ended(begun)
    assert ending(ended) == (State.CANCELLED, None, code)
    assert room.steps.done == []
    assert ended.step("one").intent is None


async def test_a_pause_elsewhere_stops_nothing(room: Room) -> None:
    once(room, other_workspace_paused, "one:recorded")
    begun = await room.begin()
    await room.work()
    assert ending(await room.ended(begun)) == (State.COMPLETED, Outcome.CHANGED, None)


async def test_a_pause_is_seen_by_a_step_that_only_waits(room: Room) -> None:
    room.steps.nap = 1.0
    once(room, workspace_paused, "one:slept")
    begun = await room.begin()
    await room.work()
    ended = await room.ended(begun)
    assert ending(ended) == (State.CANCELLED, Outcome.PARTIAL, "PAUSED")
    assert [step.state for step in ended.steps] == [StepState.COMPLETED, StepState.IN_PROGRESS]


@pytest.mark.parametrize("scope", ["ws-123", "*"])
async def test_what_is_queued_is_cancelled_by_a_pause_and_what_is_paused_begins_nothing(room: Room, scope: str) -> None:
    begun = await room.begin()
    await room.ledger.pause(scope, OPERATOR, None)
    assert await room.claim() is None
    assert ending(await room.ended(begun)) == (State.CANCELLED, None, "PAUSED")
    with pytest.raises(PolicyDenied):
        await room.begin()
    assert await room.locks() == []
    assert await room.audited(begun) == ["POST", "scale cancelled"]
    await room.ledger.resume(scope, OPERATOR)
    again = await room.begin()
    await room.work()
    assert ending(await room.ended(again)) == (State.COMPLETED, Outcome.CHANGED, None)


async def test_an_operation_begun_just_before_a_pause_was_seen_has_no_effect(room: Room) -> None:
    """As where the pause's transaction could not see the one that begins it."""
    await room.ledger.pause("ws-123", OPERATOR, None)
    asked = room.admission
    room.admission = lambda *a, **k: None  # type: ignore[method-assign,assignment]
    begun = await room.begin()
    room.admission = asked  # type: ignore[method-assign]
    await room.work()
    assert ending(await room.ended(begun)) == (State.CANCELLED, None, "PAUSED")
    assert room.steps.done == []


async def test_a_replica_that_does_not_serve_the_workspace_yet_leaves_it_to_others(
    room: Room, database: Database
) -> None:
    begun = await room.begin()
    late = Room(database, clock=room.clock, steps=room.steps)
    await late.clusters.close("ws-123")
    await late.execution.run(await late.claimed("late"))
    await room.work()
    ended = await room.ended(begun)
    assert ending(ended) == (State.COMPLETED, Outcome.CHANGED, None)
    assert (ended.attempts, late.ledger.pauses_taken) == (2, [1.0])


async def test_an_operation_of_a_workspace_that_nobody_serves_ends_after_a_while(room: Room) -> None:
    begun = await room.begin()
    await room.clusters.close("ws-123")
    await room.work()
    assert ending(await room.ended(begun)) == (State.CANCELLED, None, "DEPENDENCY_UNAVAILABLE")
    assert room.ledger.pauses_taken == [1.0, 2.0, 4.0]
    assert room.steps.done == []


async def test_a_pause_survives_the_worker_that_should_have_heeded_it(room: Room) -> None:
    begun = await room.begin()
    room.steps.at = dies_at("one:recorded")
    with pytest.raises(Died):
        await room.execution.run(await room.claimed(lease=EXPIRED))
    await room.ledger.pause("ws-123", OPERATOR, None)
    await room.work("heir")
    assert ending(await room.ended(begun)) == (State.CANCELLED, Outcome.PARTIAL, "PAUSED")
    assert room.steps.done == [(begun.id, "one")]


@pytest.mark.parametrize("change", [workspace_paused, everything_paused, only_observed, workspace_removed])
async def test_an_undo_does_not_move_while_nothing_may_be_written(room: Room, change: Change) -> None:
    room.steps.fails = "two"
    once(room, change, "two:undo")
    begun = await room.begin()
    await room.work()
    ended = await room.ended(begun)
    assert ending(ended) == (State.FAILED, Outcome.PARTIAL, "NOT_READY")
    assert room.steps.undone == []
    assert [step.undo.state for step in ended.steps if step.undo is not None] == [UndoState.SKIPPED] * 2


async def test_what_a_pause_kept_from_being_undone_is_undone_later(room: Room) -> None:
    room.steps.fails = "two"
    once(room, workspace_paused, "two:undo")
    begun = await room.begin()
    await room.work()
    ended = await room.ended(begun)
    with pytest.raises(PolicyDenied):
        await room.reopen(ended)
    await room.ledger.resume("ws-123", OPERATOR)
    once(room, other_workspace_paused, "two:undo")
    await room.reopen(ended)
    await room.work()
    assert (await room.ended(begun)).state is State.ROLLED_BACK
    assert room.steps.undone == [(begun.id, "two"), (begun.id, "one")]


@pytest.mark.parametrize("change", [revoked, permission_taken])
async def test_an_undo_is_the_services_own_duty_whoever_asked(room: Room, change: Change) -> None:
    room.steps.fails = "two"
    once(room, change, "two:undo")
    begun = await room.begin()
    await room.work()
    assert (await room.ended(begun)).state is State.ROLLED_BACK
    assert room.steps.applied == set()
