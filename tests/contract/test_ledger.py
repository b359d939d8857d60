"""The ledger on SQLite and PostgreSQL: one winner a lock, one owner an operation, nothing lost in between."""

import asyncio
from datetime import timedelta

import pytest

from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.audit.ports import AuditFilter
from opsapi.kit.caller import AccountKind
from opsapi.operations.errors import LeaseLost, OperationInProgress, OperationStopped
from opsapi.operations.model import Claim, Failure, Outcome, State, StepState, Undo, UndoState
from opsapi.operations.ports import OperationFilter
from opsapi.operations.signals import Signals
from support.acting import NOON, SetClock, make_call, make_caller, make_new_operation

MINUTE = timedelta(minutes=1)
EXPIRED = timedelta(seconds=-1)
RUNNABLE = frozenset({("scale", 1)})


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def ledger(database: Database, clock: SetClock, signals: Signals) -> SqlLedger:
    return SqlLedger(database, clock, signals)


async def claimed(ledger: SqlLedger, holder: str = "worker-a", lease: timedelta = MINUTE) -> Claim:
    claim = await ledger.claim(holder, lease, RUNNABLE)
    assert claim is not None
    return claim


async def test_what_was_begun_reads_back_whole(ledger: SqlLedger) -> None:
    call = make_call(make_caller(account_id="sa-7", kind=AccountKind.SERVICE, run="run-9"))
    new = make_new_operation()
    begun = await ledger.begin(new, call, locks={"app-1"})
    assert begun == await ledger.get(new.id)
    assert (begun.state, begun.requested_by, begun.requested_by_kind, begun.agent_run) == (
        State.QUEUED,
        "sa-7",
        "service",
        "run-9",
    )
    assert begun.created_at == NOON
    assert begun.parameters == {"replicas": 5}
    assert [(step.name, step.state, step.estimated_seconds) for step in begun.steps] == [
        ("one", StepState.PENDING, 5.0),
        ("two", StepState.PENDING, 5.0),
    ]


async def test_a_held_lock_refuses_with_its_holder_and_writes_nothing(ledger: SqlLedger) -> None:
    first = await ledger.begin(make_new_operation(), make_call(), locks={"app-1"})
    late = make_new_operation()
    with pytest.raises(OperationInProgress) as refused:
        await ledger.begin(late, make_call(), locks={"app-0", "app-1"})
    details = refused.value.details
    assert (details.resource_id, details.current_operation, details.current_operation_id) == (  # type: ignore[attr-defined]
        "app-1",
        "scale",
        first.id,
    )
    assert details.estimated_completion == first.estimated_completion  # type: ignore[attr-defined]
    assert await ledger.get(late.id) is None
    assert await ledger.holder("app-0") is None


async def test_of_fifty_racing_begins_on_one_resource_one_wins(database_url: str, clock: SetClock) -> None:
    replicas = [Database(database_url), Database(database_url)]
    try:
        ledgers = [SqlLedger(replica, clock, Signals()) for replica in replicas]
        begins = [ledgers[i % 2].begin(make_new_operation(), make_call(), locks={"app-1"}) for i in range(50)]
        answers = await asyncio.gather(*begins, return_exceptions=True)
        winners = [answer for answer in answers if not isinstance(answer, BaseException)]
        losers = [answer for answer in answers if isinstance(answer, OperationInProgress)]
        assert (len(winners), len(losers)) == (1, 49)
        assert {loser.details.current_operation_id for loser in losers} == {winners[0].id}  # type: ignore[attr-defined]
        assert len(await ledgers[0].find(OperationFilter(workspaces=None))) == 1
    finally:
        for replica in replicas:
            await replica.close()


async def test_locks_in_any_order_do_not_deadlock(database_url: str, clock: SetClock) -> None:
    replicas = [Database(database_url), Database(database_url)]
    try:
        ledgers = [SqlLedger(replica, clock, Signals()) for replica in replicas]
        orders = (["a", "b", "c"], ["c", "b", "a"])
        begins = [ledgers[i % 2].begin(make_new_operation(), make_call(), locks=orders[i % 2]) for i in range(20)]
        answers = await asyncio.gather(*begins, return_exceptions=True)
        assert sum(isinstance(answer, OperationInProgress) for answer in answers) == 19
    finally:
        for replica in replicas:
            await replica.close()


async def test_every_queued_operation_is_claimed_exactly_once(database_url: str, clock: SetClock) -> None:
    replicas = [Database(database_url), Database(database_url)]
    try:
        ledgers = [SqlLedger(replica, clock, Signals()) for replica in replicas]
        begun = [
            await ledgers[0].begin(make_new_operation(f"app-{i}"), make_call(), locks={f"app-{i}"}) for i in range(12)
        ]
        claims = await asyncio.gather(*(ledgers[i % 2].claim(f"w-{i}", MINUTE, RUNNABLE) for i in range(30)))
        # On PostgreSQL a claim may pass over a row that another is just taking; what is left is found by the next look.
        while (more := await ledgers[0].claim("w-last", MINUTE, RUNNABLE)) is not None:
            claims.append(more)
        taken = [claim.operation.id for claim in claims if claim is not None]
        assert sorted(taken) == sorted(operation.id for operation in begun)
    finally:
        for replica in replicas:
            await replica.close()


async def test_a_claim_starts_the_operation(ledger: SqlLedger, clock: SetClock) -> None:
    await ledger.begin(make_new_operation(), make_call(), locks={"app-1"})
    claim = await claimed(ledger)
    assert claim.operation.state is State.RUNNING
    assert claim.operation.started_at is not None
    assert (claim.token, claim.taken_over) == (1, False)
    assert await ledger.claim("worker-b", MINUTE, RUNNABLE) is None


async def test_the_longest_waiting_is_claimed_first_and_strange_versions_are_left(
    ledger: SqlLedger, clock: SetClock
) -> None:
    await ledger.begin(make_new_operation("app-0", version=2), make_call(), locks={"app-0"})
    clock.advance(1)
    older = await ledger.begin(make_new_operation("app-1"), make_call(), locks={"app-1"})
    clock.advance(1)
    await ledger.begin(make_new_operation("app-2"), make_call(), locks={"app-2"})
    assert (await claimed(ledger)).operation.id == older.id
    assert await ledger.claim("worker-a", MINUTE, frozenset()) is None


async def test_an_expired_lease_is_taken_over_and_the_old_owner_can_write_nothing(ledger: SqlLedger) -> None:
    await ledger.begin(make_new_operation(), make_call(), locks={"app-1"})
    zombie = await claimed(ledger, lease=EXPIRED)
    await ledger.start_step(zombie, 0)
    await ledger.intend(zombie, 0, {"replicas": 5})
    heir = await claimed(ledger, "worker-b")
    assert (heir.taken_over, heir.token) == (True, 2)
    assert heir.operation.steps[0].unsettled
    for write in (
        ledger.renew(zombie, MINUTE),
        ledger.start_step(zombie, 0),
        ledger.intend(zombie, 0, {}),
        ledger.withdraw(zombie, 0),
        ledger.record(zombie, 0, {}),
        ledger.complete_step(zombie, 0, "done"),
        ledger.fail_step(zombie, 0, Failure(code="X", message="x")),
        ledger.postpone(zombie, 0, Failure(code="X", message="x"), NOON),
        ledger.note_undo(zombie, 0, Undo(state=UndoState.UNDONE)),
        ledger.hand_over(zombie),
        ledger.finish(zombie, State.COMPLETED),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert await ledger.get(heir.operation.id) == heir.operation
    assert await ledger.holder("app-1") is not None


async def test_a_renewed_lease_is_not_taken_over(ledger: SqlLedger) -> None:
    await ledger.begin(make_new_operation(), make_call(), locks={"app-1"})
    claim = await claimed(ledger, lease=EXPIRED)
    assert await ledger.renew(claim, MINUTE) is False
    assert await ledger.claim("worker-b", MINUTE, RUNNABLE) is None


async def test_what_is_handed_over_is_taken_at_once(ledger: SqlLedger) -> None:
    await ledger.begin(make_new_operation(), make_call(), locks={"app-1"})
    await ledger.hand_over(await claimed(ledger))
    heir = await claimed(ledger, "worker-b")
    assert heir.taken_over


async def test_what_is_postponed_waits_until_then(ledger: SqlLedger) -> None:
    await ledger.begin(make_new_operation(), make_call(), locks={"app-1"})
    failure = Failure(code="DEPENDENCY_UNAVAILABLE", message="kubernetes_api is unavailable")
    claim = await claimed(ledger)
    far = NOON + timedelta(days=36500)
    await ledger.postpone(claim, 0, failure, far)
    assert await ledger.claim("worker-b", MINUTE, RUNNABLE) is None
    held = await ledger.get(claim.operation.id)
    assert held is not None
    assert (held.state, held.steps[0].error) == (State.RUNNING, failure)


async def test_what_was_postponed_until_a_past_moment_is_taken(ledger: SqlLedger) -> None:
    await ledger.begin(make_new_operation(), make_call(), locks={"app-1"})
    await ledger.postpone(await claimed(ledger), 0, Failure(code="X", message="x"), NOON - MINUTE)
    assert (await claimed(ledger, "worker-b")).taken_over


async def test_an_intent_is_unsettled_until_its_effect_is_recorded(ledger: SqlLedger) -> None:
    new = make_new_operation()
    await ledger.begin(new, make_call(), locks={"app-1"})
    claim = await claimed(ledger)
    started = claim.operation
    assert claim.step_started
    assert (started.steps[0].attempts, started.steps[0].state) == (1, StepState.IN_PROGRESS)
    assert started == await ledger.get(new.id)
    await ledger.intend(claim, 0, {"replicas": 5})
    held = await ledger.get(new.id)
    assert held is not None
    assert held.steps[0].unsettled
    assert held.steps[0].intent == {"replicas": 5}
    await ledger.record(claim, 0, {"replicas": 5, "resource_version": "12"})
    held = await ledger.get(new.id)
    assert held is not None
    assert not held.steps[0].unsettled
    assert held.steps[0].effect == {"replicas": 5, "resource_version": "12"}


async def test_a_withdrawn_intent_leaves_nothing_to_settle(ledger: SqlLedger) -> None:
    new = make_new_operation()
    await ledger.begin(new, make_call(), locks={"app-1"})
    claim = await claimed(ledger)
    await ledger.intend(claim, 0, {"replicas": 5})
    await ledger.withdraw(claim, 0)
    held = await ledger.get(new.id)
    assert held is not None
    assert (held.steps[0].intent, held.steps[0].unsettled) == (None, False)


async def test_finishing_frees_the_locks_and_keeps_results(ledger: SqlLedger, clock: SetClock) -> None:
    new = make_new_operation()
    await ledger.begin(new, make_call(), locks={"app-1", "app-2"})
    claim = await claimed(ledger)
    clock.advance(5)
    await ledger.complete_step(claim, 0, "Set to 5", result={"new_replicas": 5}, outcome=Outcome.CHANGED)
    await ledger.complete_step(claim, 1, "Ready", result={"ready": 5}, skipped=True)
    done = await ledger.finish(claim, State.COMPLETED)
    assert (done.state, done.outcome, done.result) == (
        State.COMPLETED,
        Outcome.CHANGED,
        {"new_replicas": 5, "ready": 5},
    )
    assert done.finished_at == clock.now()
    assert [step.state for step in done.steps] == [StepState.COMPLETED, StepState.SKIPPED]
    assert done.steps[0].duration == timedelta(seconds=5)
    assert await ledger.holder("app-1") is None
    await ledger.begin(make_new_operation(), make_call(), locks={"app-1", "app-2"})


async def test_a_finished_operation_is_never_claimed_again(ledger: SqlLedger) -> None:
    await ledger.begin(make_new_operation(), make_call(), locks={"app-1"})
    await ledger.finish(await claimed(ledger), State.FAILED)
    assert await ledger.claim("worker-b", MINUTE, RUNNABLE) is None


async def test_a_failed_step_marks_the_operation_as_failing_but_keeps_its_lock(ledger: SqlLedger) -> None:
    new = make_new_operation()
    await ledger.begin(new, make_call(), locks={"app-1"})
    claim = await claimed(ledger)
    failure = Failure(code="NOT_READY", message="2 of 5 are ready", details={"ready": 2})
    await ledger.start_step(claim, 1)
    await ledger.fail_step(claim, 1, failure)
    held = await ledger.get(new.id)
    assert held is not None
    assert (held.state, held.error, held.steps[1].state) == (State.RUNNING, failure, StepState.FAILED)
    assert await ledger.holder("app-1") == held


async def test_undo_is_noted_by_step(ledger: SqlLedger) -> None:
    new = make_new_operation()
    await ledger.begin(new, make_call(), locks={"app-1"})
    claim = await claimed(ledger)
    undo = Undo(state=UndoState.SKIPPED, reason="replicas were changed since")
    await ledger.note_undo(claim, 0, undo)
    held = await ledger.get(new.id)
    assert held is not None
    assert held.steps[0].undo == undo


async def test_an_operation_that_was_asked_to_stop_writes_no_further_intent(
    ledger: SqlLedger, database: Database
) -> None:
    import sqlalchemy as sa

    from opsapi.adapters.sql.tables import operations

    new = make_new_operation()
    await ledger.begin(new, make_call(), locks={"app-1"})
    claim = await claimed(ledger)
    async with database.write() as connection:
        await connection.execute(sa.update(operations).values(cancel_requested_at=NOON))
    assert await ledger.renew(claim, MINUTE) is True
    with pytest.raises(OperationStopped):
        await ledger.intend(claim, 0, {"replicas": 5})
    held = await ledger.get(new.id)
    assert held is not None
    assert held.steps[0].intent is None


async def test_begin_repeat_and_end_are_audited_with_the_operation(ledger: SqlLedger, database: Database) -> None:
    call = make_call(make_caller(account_id="sa-7"))
    new = make_new_operation()
    await ledger.begin(new, call, locks={"ws-123/app-1"})
    assert call.audit.committed
    claim = await claimed(ledger)
    await ledger.intend(claim, 0, {"replicas": 5})
    await ledger.record(claim, 0, {"replicas": 5}, found=True)
    await ledger.fail_step(claim, 1, Failure(code="NOT_READY", message="2 of 5 are ready"))
    await ledger.finish(claim, State.FAILED)
    entries = await SqlAuditStore(database).page(AuditFilter(workspaces=None, operation_id=new.id), None, 10)
    told = {(e.account_id, e.method, e.path, e.status, e.error_code, e.workspace_id, e.reason) for e in entries}
    assert told == {
        ("sa-7", "POST", call.path, 202, None, "ws-123", "more traffic"),
        ("system:operations", "OPERATIONS", "one effect found", 200, None, "ws-123", "more traffic"),
        ("system:operations", "OPERATIONS", "scale failed", 500, "NOT_READY", "ws-123", "more traffic"),
    }


async def test_a_refused_begin_leaves_the_audit_to_the_guard(ledger: SqlLedger, database: Database) -> None:
    await ledger.begin(make_new_operation(), make_call(), locks={"ws-123/app-1"})
    late = make_call()
    with pytest.raises(OperationInProgress):
        await ledger.begin(make_new_operation(), late, locks={"ws-123/app-1"})
    assert (late.audit.committed, late.audit.operation_id, late.audit.resource) == (False, None, "app-1")
    assert len(await SqlAuditStore(database).page(AuditFilter(workspaces=None), None, 10)) == 1


async def test_lists_are_newest_first_filtered_and_continued(ledger: SqlLedger, clock: SetClock) -> None:
    ids = []
    for i in range(5):
        new = make_new_operation(f"app-{i}", workspace_id=f"ws-{i % 2}")
        ids.append((await ledger.begin(new, make_call(), locks={f"app-{i}"})).id)
        clock.advance(1)
    first = await ledger.find(OperationFilter(workspaces=None, limit=2))
    assert [operation.id for operation in first] == [ids[4], ids[3]]
    rest = await ledger.find(OperationFilter(workspaces=None, before=(first[-1].created_at, first[-1].id)))
    assert [operation.id for operation in rest] == [ids[2], ids[1], ids[0]]
    assert [o.id for o in await ledger.find(OperationFilter(workspaces=frozenset({"ws-1"})))] == [ids[3], ids[1]]
    assert await ledger.find(OperationFilter(workspaces=frozenset())) == []
    assert [o.id for o in await ledger.find(OperationFilter(workspaces=None, application_id="app-2"))] == [ids[2]]
    assert await ledger.find(OperationFilter(workspaces=None, action="backup")) == []
    await claimed(ledger)
    running = await ledger.find(OperationFilter(workspaces=None, states=frozenset({State.RUNNING})))
    assert [operation.id for operation in running] == [ids[0]]


async def test_entries_of_the_same_moment_are_neither_lost_nor_doubled_between_pages(ledger: SqlLedger) -> None:
    begun = {(await ledger.begin(make_new_operation(f"app-{i}"), make_call(), locks={f"app-{i}"})).id for i in range(7)}
    seen: list[str] = []
    before = None
    while page := await ledger.find(OperationFilter(workspaces=None, before=before, limit=3)):
        seen += [operation.id for operation in page]
        before = (page[-1].created_at, page[-1].id)
    assert (len(seen), set(seen)) == (7, begun)


async def test_durations_come_from_completed_runs_only(ledger: SqlLedger, clock: SetClock) -> None:
    for i, (seconds, state) in enumerate([(4, State.COMPLETED), (6, State.COMPLETED), (50, State.FAILED)]):
        await ledger.begin(make_new_operation(f"app-{i}"), make_call(), locks={f"app-{i}"})
        claim = await claimed(ledger)
        clock.advance(seconds)
        await ledger.complete_step(claim, 0, "done")
        await ledger.finish(claim, state)
    assert {name: sorted(runs) for name, runs in (await ledger.step_durations("scale", 20)).items()} == {
        "one": [4.0, 6.0]
    }
    assert {name: list(runs) for name, runs in (await ledger.step_durations("scale", 1)).items()} == {"one": [6.0]}


async def test_depth_counts_what_waits_and_runs(ledger: SqlLedger, clock: SetClock) -> None:
    assert (await ledger.depth()).oldest_queued_at is None
    for i in range(3):
        await ledger.begin(make_new_operation(f"app-{i}"), make_call(), locks={f"app-{i}"})
        clock.advance(1)
    await claimed(ledger)
    depth = await ledger.depth()
    assert (depth.queued, depth.running, depth.oldest_queued_at) == (2, 1, NOON + timedelta(seconds=1))


async def test_waiters_are_woken_by_progress(ledger: SqlLedger, signals: Signals) -> None:
    new = make_new_operation()
    with signals.subscribe(Signals.QUEUED) as queue, signals.subscribe(new.id) as progress:
        await ledger.begin(new, make_call(), locks={"app-1"})
        assert await queue.wait(5)
        claim = await claimed(ledger)
        await ledger.complete_step(claim, 0, "done")
        assert await progress.wait(5)


async def test_a_step_ends_and_the_next_starts_together(ledger: SqlLedger, clock: SetClock) -> None:
    new = make_new_operation()
    await ledger.begin(new, make_call(), locks={"app-1"})
    claim = await claimed(ledger)
    clock.advance(3)
    held = await ledger.complete_step(claim, 0, "Set to 5", result={"replicas": 5}, then=1)
    assert held == await ledger.get(new.id)
    assert [(step.state, step.attempts) for step in held.steps] == [
        (StepState.COMPLETED, 1),
        (StepState.IN_PROGRESS, 1),
    ]
    assert held.steps[1].started_at == held.steps[0].finished_at == clock.now()
    assert (held.state, held.result) == (State.RUNNING, {"replicas": 5})


async def test_the_last_step_and_the_operation_end_together(ledger: SqlLedger, database: Database) -> None:
    new = make_new_operation()
    await ledger.begin(new, make_call(), locks={"app-1"})
    claim = await claimed(ledger)
    await ledger.complete_step(claim, 0, "Set to 5", result={"replicas": 5}, then=1)
    ended = await ledger.complete_step(
        claim, 1, "Ready", result={"ready": 5}, outcome=Outcome.CHANGED, then=State.COMPLETED
    )
    assert ended == await ledger.get(new.id)
    assert (ended.state, ended.outcome, ended.result) == (
        State.COMPLETED,
        Outcome.CHANGED,
        {"replicas": 5, "ready": 5},
    )
    assert await ledger.holder("app-1") is None
    entries = await SqlAuditStore(database).page(AuditFilter(workspaces=None, operation_id=new.id), None, 10)
    assert [entry.path for entry in entries if entry.method == "OPERATIONS"] == ["scale completed"]
    with pytest.raises(LeaseLost):
        await ledger.complete_step(claim, 1, "again", then=State.COMPLETED)


async def test_work_that_comes_after_an_empty_look_is_found(ledger: SqlLedger) -> None:
    for i in range(2):
        await ledger.begin(make_new_operation(f"app-{i}"), make_call(), locks={f"app-{i}"})
        await claimed(ledger)
        assert await ledger.claim("worker-b", MINUTE, RUNNABLE) is None
        assert await ledger.claim("worker-b", MINUTE, RUNNABLE) is None
