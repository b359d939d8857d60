"""What the ledger judges in the transaction that begins a change: budgets, cooldowns, repetition, failures, pauses."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.tables import audit_entries, operation_targets, operations, outbox_events
from opsapi.kit.caller import AccountKind, Call, System
from opsapi.kit.errors import InvalidState, PolicyDenied, PolicyRule
from opsapi.operations.errors import InProgressDetails, OperationInProgress, OperationStopped
from opsapi.operations.model import (
    Approval,
    Claim,
    Failure,
    Item,
    ItemState,
    Operation,
    Outcome,
    State,
    Undo,
    UndoState,
)
from opsapi.operations.signals import Signals
from opsapi.policy.admission import Admission
from opsapi.policy.model import Ask, Limits, Override, PolicySettings, SomeLimits, Subject
from support.acting import NOON, SetClock, make_call, make_caller, make_new_operation

LEASE = timedelta(minutes=1)
OPEN = Limits(
    changes_per_hour_account=1000, changes_per_hour_workspace=1000, cooldown_seconds=0, same_action_per_hour=1000
)
OPERATOR = System(origin="cli", action="test", user="root")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def ledger(database: Database, clock: SetClock) -> SqlLedger:
    return SqlLedger(database, clock, Signals())


def limits(**changes: object) -> PolicySettings:
    held = {name: getattr(OPEN, name) for name in OPEN.__struct_fields__} | changes
    return PolicySettings(limits=Limits(**held))


def admission(
    settings: PolicySettings,
    clock: SetClock,
    target: str = "app-1",
    *,
    account: str = "sa-agent",
    kind: AccountKind = AccountKind.AGENT,
    action: str = "scale",
    waits: bool = False,
) -> Admission:
    subject = Subject(account, kind, "ws-123", "act")
    ask = Ask(subject=subject, action=action, at=clock.now(), targets=(f"ws-123/{target}",))
    return Admission(ask, settings, waits=waits)


async def begin(
    ledger: SqlLedger,
    clock: SetClock,
    settings: PolicySettings,
    target: str = "app-1",
    *,
    account: str = "sa-agent",
    kind: AccountKind = AccountKind.AGENT,
    call: Call | None = None,
    **changes: Any,
) -> Operation:
    asked = admission(settings, clock, target, account=account, kind=kind)
    held: dict[str, Any] = {"counted": True, "targets": asked.ask.targets, "targets_at": clock.now()} | changes
    new = make_new_operation(target, **held)
    waits = new.approval is not None
    asked = admission(settings, clock, target, account=account, kind=kind, waits=waits)
    call = call or make_call(make_caller(account_id=account, kind=kind))
    return await ledger.begin(new, call, locks={f"ws-123/{target}"}, admission=asked)


async def end(ledger: SqlLedger, state: State = State.COMPLETED, outcome: Outcome = Outcome.CHANGED) -> None:
    claim = await claimed(ledger)
    await ledger.finish(claim, state, outcome=outcome)


async def claimed(ledger: SqlLedger) -> Claim:
    claim = await ledger.claim("worker", LEASE, {("scale", 1)})
    assert claim is not None
    return claim


def rule(refused: pytest.ExceptionInfo[PolicyDenied]) -> str:
    return str(refused.value.details.rule)  # type: ignore[attr-defined]


async def test_an_accounts_budget_is_counted_over_an_hour(ledger: SqlLedger, clock: SetClock) -> None:
    settings = limits(changes_per_hour_account=2)
    for i in range(2):
        await begin(ledger, clock, settings, f"app-{i}")
        clock.advance(60)
    with pytest.raises(PolicyDenied) as refused:
        await begin(ledger, clock, settings, "app-2")
    assert rule(refused) == PolicyRule.ACCOUNT_BUDGET
    assert refused.value.details.next_allowed_at == NOON + timedelta(hours=1)  # type: ignore[attr-defined]
    await begin(ledger, clock, settings, "app-2", account="sa-other")
    clock.advance(3600 - 120)
    await begin(ledger, clock, settings, "app-2b")


async def test_a_workspaces_budget_counts_all_guarded_accounts(ledger: SqlLedger, clock: SetClock) -> None:
    settings = limits(changes_per_hour_workspace=2)
    await begin(ledger, clock, settings, "app-0", account="sa-a")
    await begin(ledger, clock, settings, "app-1", account="sa-b")
    with pytest.raises(PolicyDenied) as refused:
        await begin(ledger, clock, settings, "app-2", account="sa-c")
    assert rule(refused) == PolicyRule.WORKSPACE_BUDGET
    await begin(ledger, clock, settings, "app-2", account="sa-person", kind=AccountKind.PERSON)


async def test_what_turned_out_to_need_nothing_uses_no_budget(ledger: SqlLedger, clock: SetClock) -> None:
    settings = limits(changes_per_hour_account=1, cooldown_seconds=300)
    await begin(ledger, clock, settings)
    await end(ledger, outcome=Outcome.NOTHING_TO_DO)
    await begin(ledger, clock, settings)


async def test_a_target_is_let_settle_between_two_changes(ledger: SqlLedger, clock: SetClock) -> None:
    settings = limits(cooldown_seconds=300)
    await begin(ledger, clock, settings)
    await end(ledger)
    clock.advance(299)
    with pytest.raises(PolicyDenied) as refused:
        await begin(ledger, clock, settings)
    assert rule(refused) == PolicyRule.COOLDOWN
    assert refused.value.details.next_allowed_at == NOON + timedelta(seconds=300)  # type: ignore[attr-defined]
    clock.advance(1)
    await begin(ledger, clock, settings)


async def test_the_same_action_may_be_repeated_so_often_an_hour(ledger: SqlLedger, clock: SetClock) -> None:
    settings = limits(same_action_per_hour=2)
    for _ in range(2):
        await begin(ledger, clock, settings)
        await end(ledger)
        clock.advance(600)
    with pytest.raises(PolicyDenied) as refused:
        await begin(ledger, clock, settings)
    assert rule(refused) == PolicyRule.SAME_ACTION


@pytest.mark.parametrize("how", [State.FAILED, State.ROLLED_BACK])
async def test_three_failures_in_a_row_block_a_target_for_an_hour(
    ledger: SqlLedger, clock: SetClock, how: State
) -> None:
    settings = limits()
    for _ in range(3):
        await begin(ledger, clock, settings)
        await end(ledger, how, Outcome.PARTIAL)
        clock.advance(1)
    with pytest.raises(PolicyDenied) as refused:
        await begin(ledger, clock, settings)
    assert rule(refused) == PolicyRule.FAILURE_BLOCK
    blocked = await ledger.failing(settings)
    assert {target: held.failures for target, held in blocked.items()} == {"ws-123/app-1": 3}
    clock.advance(3600)
    await begin(ledger, clock, settings)
    await end(ledger)
    assert await ledger.failing(settings) == {}


async def test_a_success_between_failures_starts_the_count_again(ledger: SqlLedger, clock: SetClock) -> None:
    settings = limits()
    for how in (State.FAILED, State.FAILED, State.COMPLETED, State.FAILED, State.FAILED):
        await begin(ledger, clock, settings)
        await end(ledger, how)
        clock.advance(1)
    await begin(ledger, clock, settings)


async def test_a_refused_beginning_leaves_nothing_behind(
    ledger: SqlLedger, clock: SetClock, database: Database
) -> None:
    settings = limits(changes_per_hour_account=0)
    call = make_call()
    with pytest.raises(PolicyDenied):
        await begin(ledger, clock, settings, call=call)
    assert not call.audit.committed
    async with database.read() as connection:
        for table in (operations, operation_targets, outbox_events, audit_entries):
            count = sa.select(sa.func.count()).select_from(table)
            assert (await connection.execute(count)).scalar_one() == 0


async def test_racing_calls_never_exceed_the_budget(database: Database, clock: SetClock) -> None:
    """On PostgreSQL two replicas would otherwise both count what neither has committed."""
    settings = limits(changes_per_hour_account=3)
    replicas = [SqlLedger(database, clock, Signals()) for _ in range(2)]
    begins = [begin(replicas[i % 2], clock, settings, f"app-{i}") for i in range(20)]
    results = await asyncio.gather(*begins, return_exceptions=True)
    assert sum(isinstance(one, Operation) for one in results) == 3
    assert {type(one) for one in results} == {Operation, PolicyDenied}


async def test_an_override_sets_other_limits_for_some(ledger: SqlLedger, clock: SetClock) -> None:
    override = Override(accounts=("sa-release-*",), limits=SomeLimits(changes_per_hour_account=5))
    settings = PolicySettings(limits=limits(changes_per_hour_account=0).limits, overrides=(override,))
    await begin(ledger, clock, settings, account="sa-release-1")
    with pytest.raises(PolicyDenied):
        await begin(ledger, clock, settings, "app-2", account="sa-other")


def waiting(**changes: Any) -> dict[str, Any]:
    approval = Approval(rules=("deletion",), messages=("3 objects would be deleted",))
    return {"approval": approval, "approval_expires_at": NOON + timedelta(hours=1), "plan_hash": "a" * 64} | changes


async def test_what_waits_for_a_decision_holds_no_lock_and_is_not_claimed(ledger: SqlLedger, clock: SetClock) -> None:
    held = await begin(ledger, clock, limits(), **waiting())
    assert held.state is State.PENDING_APPROVAL
    assert held.approval is not None
    assert await ledger.holder("ws-123/app-1") is None
    assert await ledger.claim("worker", LEASE, {("scale", 1)}) is None


async def test_so_many_of_an_accounts_requests_may_wait(ledger: SqlLedger, clock: SetClock) -> None:
    settings = limits(pending_approvals=2)
    for i in range(2):
        await begin(ledger, clock, settings, f"app-{i}", **waiting())
    with pytest.raises(PolicyDenied) as refused:
        await begin(ledger, clock, settings, "app-2", **waiting())
    assert rule(refused) == PolicyRule.PENDING_APPROVALS
    await begin(ledger, clock, settings, "app-2", account="sa-other", **waiting())


async def test_approval_takes_the_locks_counts_the_budget_and_queues(
    ledger: SqlLedger, clock: SetClock, database: Database
) -> None:
    held = await begin(ledger, clock, limits(), **waiting())
    clock.advance(60)
    until = clock.now() + timedelta(minutes=5)
    approved = await ledger.approve(held.id, OPERATOR, admission=admission(limits(), clock), until=until)
    assert (approved.state, approved.approved_by, approved.approved_at) == (State.QUEUED, "system:cli", clock.now())
    assert approved.deadline_at == until
    holder = await ledger.holder("ws-123/app-1")
    assert holder is not None
    assert holder.id == held.id
    assert await events(database) == ["internal.approval.requested", "internal.approval.decided"]
    settings = limits(cooldown_seconds=300)
    await end(ledger)
    with pytest.raises(PolicyDenied) as refused:
        await begin(ledger, clock, settings)
    assert rule(refused) == PolicyRule.COOLDOWN


async def test_an_approval_is_refused_while_another_operation_holds_the_target(
    ledger: SqlLedger, clock: SetClock
) -> None:
    held = await begin(ledger, clock, limits(), **waiting())
    other = await begin(ledger, clock, limits())
    with pytest.raises(OperationInProgress) as refused:
        await ledger.approve(held.id, OPERATOR, admission=admission(limits(), clock), until=clock.now())
    assert isinstance(refused.value.details, InProgressDetails)
    assert refused.value.details.current_operation_id == other.id
    still = await ledger.get(held.id)
    assert still is not None
    assert still.state is State.PENDING_APPROVAL


async def test_nobody_decides_twice_or_after_the_end(ledger: SqlLedger, clock: SetClock) -> None:
    held = await begin(ledger, clock, limits(), **waiting())
    rejected = await ledger.reject(held.id, OPERATOR, Failure(code="APPROVAL_REJECTED", message="no"))
    assert (rejected.state, rejected.outcome) == (State.CANCELLED, None)
    with pytest.raises(InvalidState):
        await ledger.approve(held.id, OPERATOR, admission=admission(limits(), clock), until=clock.now())
    with pytest.raises(InvalidState):
        await ledger.reject(held.id, OPERATOR, Failure(code="APPROVAL_REJECTED", message="no"))


async def test_what_nobody_decided_in_time_ends(ledger: SqlLedger, clock: SetClock) -> None:
    held = await begin(ledger, clock, limits(), **waiting())
    assert await ledger.expire(clock.now()) == 0
    clock.advance(3600)
    with pytest.raises(InvalidState):
        await ledger.approve(held.id, OPERATOR, admission=admission(limits(), clock), until=clock.now())
    assert await ledger.expire(clock.now()) == 1
    ended = await ledger.get(held.id)
    assert ended is not None
    assert (ended.state, ended.error.code if ended.error else None) == (State.CANCELLED, "APPROVAL_EXPIRED")


async def test_what_is_queued_is_cancelled_at_once_and_frees_its_locks(ledger: SqlLedger, clock: SetClock) -> None:
    held = await begin(ledger, clock, limits())
    ended = await ledger.cancel(held.id, make_call())
    assert ended.state is State.CANCELLED
    assert await ledger.holder("ws-123/app-1") is None
    with pytest.raises(InvalidState):
        await ledger.cancel(held.id, make_call())


async def test_what_runs_stops_before_its_next_effect_and_keeps_its_locks_till_then(
    ledger: SqlLedger, clock: SetClock
) -> None:
    held = await begin(ledger, clock, limits())
    claim = await claimed(ledger)
    asked = await ledger.cancel(held.id, make_call())
    assert (asked.state, asked.cancel_requested_by) == (State.RUNNING, "sa-agent")
    assert await ledger.renew(claim, LEASE)
    assert await ledger.holder("ws-123/app-1") is not None
    with pytest.raises(OperationStopped):
        await ledger.intend(claim, 0, {"replicas": 5})
    with pytest.raises(OperationStopped):
        await ledger.put_item(claim, 0, "pod/a", Item(intent={"evict": "a"}), intends=True)


async def test_a_pause_cancels_what_waits_and_stops_what_runs(
    ledger: SqlLedger, clock: SetClock, database: Database
) -> None:
    running = await begin(ledger, clock, limits(), "app-0")
    claim = await claimed(ledger)
    queued = await begin(ledger, clock, limits(), "app-1")
    pending = await begin(ledger, clock, limits(), "app-2", **waiting())
    pause = await ledger.pause("ws-123", make_call(), "an incident")
    assert (pause.paused_by, pause.reason) == ("sa-agent", "an incident")
    states = [held.state for one in (running, queued, pending) if (held := await ledger.get(one.id)) is not None]
    assert states == [State.RUNNING, State.CANCELLED, State.CANCELLED]
    with pytest.raises(OperationStopped):
        await ledger.intend(claim, 0, {})
    with pytest.raises(PolicyDenied) as refused:
        await begin(ledger, clock, limits(), "app-3", account="sa-person", kind=AccountKind.PERSON)
    assert rule(refused) == PolicyRule.PAUSED
    assert await ledger.pauses() == [pause]
    assert await ledger.resume("ws-123", make_call())
    assert not await ledger.resume("ws-123", make_call())
    await begin(ledger, clock, limits(), "app-3")


async def test_a_pause_of_everything_holds_in_every_workspace(ledger: SqlLedger, clock: SetClock) -> None:
    await ledger.pause("*", OPERATOR, None)
    with pytest.raises(PolicyDenied):
        await begin(ledger, clock, limits())
    await ledger.resume("*", OPERATOR)
    await begin(ledger, clock, limits())


async def test_an_ended_operation_is_reopened_to_be_undone(ledger: SqlLedger, clock: SetClock) -> None:
    held = await begin(ledger, clock, limits(cooldown_seconds=300))
    claim = await claimed(ledger)
    await ledger.intend(claim, 0, {"replicas": 5})
    await ledger.record(claim, 0, {"replicas": 5})
    await ledger.finish(claim, State.COMPLETED, outcome=Outcome.CHANGED)
    exempt = Admission(admission(limits(cooldown_seconds=300), clock).ask, limits(cooldown_seconds=300), exempt=True)
    reopened = await ledger.reopen(held.id, make_call(), admission=exempt, until=clock.now() + LEASE)
    assert (reopened.state, reopened.rollback_requested_by) == (State.QUEUED, "sa-agent")
    assert await ledger.holder("ws-123/app-1") is not None
    claim = await claimed(ledger)
    await ledger.note_undo(claim, 0, Undo(state=UndoState.UNDONE))
    await ledger.finish(claim, State.ROLLED_BACK)
    with pytest.raises(InvalidState):
        await ledger.reopen(held.id, make_call(), admission=exempt, until=clock.now() + LEASE)


async def test_what_had_no_effect_cannot_be_rolled_back(ledger: SqlLedger, clock: SetClock) -> None:
    held = await begin(ledger, clock, limits())
    await end(ledger, outcome=Outcome.NOTHING_TO_DO)
    exempt = Admission(admission(limits(), clock).ask, limits(), exempt=True)
    with pytest.raises(InvalidState):
        await ledger.reopen(held.id, make_call(), admission=exempt, until=clock.now())


async def test_a_key_begins_one_operation_for_a_day(ledger: SqlLedger, clock: SetClock) -> None:
    first = make_call(key="k-1")
    held = await begin(ledger, clock, limits(), call=first)
    again = make_call(key="k-1")
    assert await ledger.earlier(again) == held
    assert (await begin(ledger, clock, limits(), "app-9", call=again)).id == held.id
    assert again.audit.committed
    assert await ledger.earlier(make_call(key="k-2")) is None
    assert await ledger.earlier(make_call(make_caller(account_id="sa-other"), key="k-1")) is None
    clock.advance(86400)
    assert await ledger.earlier(again) is None
    await end(ledger)
    assert (await begin(ledger, clock, limits(), call=make_call(key="k-1"))).id != held.id


async def test_items_keep_their_own_intents_and_effects(ledger: SqlLedger, clock: SetClock) -> None:
    held = await begin(ledger, clock, limits())
    claim = await claimed(ledger)
    await ledger.put_item(claim, 0, "pod/a", Item(intent={"uid": "1"}), intends=True)
    await ledger.put_item(claim, 0, "pod/b", Item(intent={"uid": "2"}), intends=True)
    done = Item(state=ItemState.DONE, intent={"uid": "1"}, effect={"evicted": True}, message="evicted")
    await ledger.put_item(claim, 0, "pod/a", done)
    operation = await ledger.get(held.id)
    assert operation is not None
    items = operation.steps[0].items
    assert items["pod/a"] == done
    assert (items["pod/b"].unsettled, items["pod/a"].unsettled) == (True, False)
    assert operation.touched


async def test_a_running_operation_takes_and_frees_further_locks(ledger: SqlLedger, clock: SetClock) -> None:
    await begin(ledger, clock, limits(), "app-1")
    claim = await claimed(ledger)
    await ledger.acquire(claim, ["ws-123/app-2"])
    await ledger.acquire(claim, ["ws-123/app-2"])
    with pytest.raises(OperationInProgress):
        await begin(ledger, clock, limits(), "app-2")
    await ledger.release(claim, ["ws-123/app-2"])
    other = await begin(ledger, clock, limits(), "app-2")
    with pytest.raises(OperationInProgress):
        await ledger.acquire(claim, ["ws-123/app-2"])
    await ledger.cancel(other.id, OPERATOR)


async def test_plans_are_issued_to_one_account_for_a_time(ledger: SqlLedger, clock: SetClock) -> None:
    await ledger.issue_plan("sa-agent", "a" * 64, clock.now() + timedelta(hours=1))
    assert await ledger.plan_issued("sa-agent", "a" * 64)
    assert not await ledger.plan_issued("sa-other", "a" * 64)
    assert not await ledger.plan_issued("sa-agent", "b" * 64)
    clock.advance(3600)
    assert not await ledger.plan_issued("sa-agent", "a" * 64)
    await ledger.issue_plan("sa-agent", "a" * 64, clock.now() + timedelta(hours=1))
    assert await ledger.plan_issued("sa-agent", "a" * 64)


async def test_history_is_purged_once_it_is_old(ledger: SqlLedger, clock: SetClock) -> None:
    for i in range(3):
        await begin(ledger, clock, limits(), f"app-{i}")
        await end(ledger)
    open_ = await begin(ledger, clock, limits(), "app-9")
    clock.advance(10)
    assert await ledger.purge(clock.now() - timedelta(days=1)) == 0
    assert await ledger.purge(clock.now(), limit=2) == 2
    assert await ledger.purge(clock.now(), limit=2) == 1
    assert await ledger.get(open_.id) is not None


async def events(database: Database) -> list[str]:
    async with database.read() as connection:
        statement = sa.select(outbox_events.c.type).order_by(outbox_events.c.occurred_at, outbox_events.c.type.desc())
        return list((await connection.execute(statement)).scalars().all())


async def test_each_transition_is_announced_once_in_its_own_transaction(
    ledger: SqlLedger, clock: SetClock, database: Database
) -> None:
    await begin(ledger, clock, limits())
    assert await events(database) == []
    assert await ledger.claim("worker", timedelta(seconds=-1), {("scale", 1)}) is not None
    assert await events(database) == ["internal.operation.started"]
    clock.advance(1)
    claim = await ledger.claim("heir", LEASE, {("scale", 1)})
    assert claim is not None
    assert claim.taken_over
    await ledger.finish(claim, State.FAILED, error=Failure(code="NOT_READY", message="no"))
    assert await events(database) == ["internal.operation.started", "internal.operation.failed"]
