"""What waits for a person, through the desk and the decider: who may decide, and that what was seen is what is done."""

from datetime import timedelta

import msgspec
import pytest

from opsapi.kit.caller import AccountKind, Call, System
from opsapi.kit.errors import InvalidState, PolicyDenied
from opsapi.operations.deciding import AccountFacts, Decider
from opsapi.operations.errors import ApprovalRefused, StalePlan
from opsapi.operations.model import Operation, State
from opsapi.policy.model import PolicySettings
from support.acting import make_call, make_caller
from support.scaling import Stage

PERSON = make_caller("approvals:write", account_id="sa-alice", kind=AccountKind.PERSON)
MAKER = make_caller("approvals:write", account_id="sa-maker", kind=AccountKind.PERSON)
FACTS = {
    "sa-alice": AccountFacts("alice@example.com", "system:cli"),
    "sa-maker": AccountFacts("maker@example.com", "system:cli"),
    "sa-agent": AccountFacts("healer", "sa-maker"),
}


def decider(stage: Stage) -> Decider:
    async def facts_of(account_id: str) -> AccountFacts | None:
        return FACTS.get(account_id)

    def mode_of(workspace_id: str):  # type: ignore[no-untyped-def]
        cluster = stage.clusters.find(workspace_id)
        return None if cluster is None else (cluster.workspace.mode, cluster.inventory.now())

    return Decider(stage.ledger, stage.procedures, stage.book, stage.clock, facts_of, mode_of)


async def asked(stage: Stage, replicas: int = 9, call: Call | None = None) -> Operation:
    """An agent wants more than doubling, so a person has to say yes."""
    reply = await stage.scale(replicas, call=call)
    assert reply.data.status == "pending_approval"
    assert reply.operation_id is not None
    held = await stage.ledger.get(reply.operation_id)
    assert held is not None
    assert held.plan_hash is not None
    return held


async def test_a_persons_yes_carries_out_what_was_asked_for(stage: Stage) -> None:
    held = await asked(stage)
    approved = await decider(stage).approve(held, make_call(PERSON), held.plan_hash or "")
    assert (approved.state, approved.approved_by) == (State.QUEUED, "sa-alice")
    await stage.work()
    ended = await stage.only()
    assert (ended.state, ended.approved_by, stage.workloads.replicas()) == (State.COMPLETED, "sa-alice", 9)


@pytest.mark.parametrize(
    ("by", "rule"),
    [
        (make_caller("approvals:write", account_id="sa-robot"), "person"),
        (make_caller("approvals:write", account_id="sa-robot", kind=AccountKind.SERVICE), "person"),
        (make_caller("approvals:write", account_id="sa-agent", kind=AccountKind.PERSON), "requester"),
        (MAKER, "creator"),
    ],
    ids=["an agent", "a service", "the asker", "the asker's creator"],
)
async def test_who_may_not_decide(stage: Stage, by, rule: str) -> None:  # type: ignore[no-untyped-def]
    held = await asked(stage)
    for decide in (
        decider(stage).approve(held, make_call(by), held.plan_hash or ""),
        decider(stage).reject(held, make_call(by), None),
    ):
        with pytest.raises(ApprovalRefused) as refused:
            await decide
        assert refused.value.details.rule == rule  # type: ignore[attr-defined]
    assert (await stage.only()).state is State.PENDING_APPROVAL


async def test_for_whom_it_is_asked_may_not_decide_either(stage: Stage) -> None:
    asker = msgspec.structs.replace(make_caller(), on_behalf_of="alice@example.com")
    held = await asked(stage, call=make_call(asker))
    with pytest.raises(ApprovalRefused):
        await decider(stage).approve(held, make_call(PERSON), held.plan_hash or "")


async def test_an_approval_quotes_the_plan_that_was_seen(stage: Stage) -> None:
    held = await asked(stage)
    with pytest.raises(StalePlan):
        await decider(stage).approve(held, make_call(PERSON), "0" * 64)
    assert (await stage.only()).state is State.PENDING_APPROVAL


async def test_what_has_changed_since_fails_with_the_fresh_plan_attached(stage: Stage) -> None:
    held = await asked(stage)
    stage.workloads.replace(replicas=4)
    with pytest.raises(StalePlan):
        await decider(stage).approve(held, make_call(PERSON), held.plan_hash or "")
    ended = await stage.only()
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "STALE_PLAN"
    changes = ended.error.details["fresh_plan"]["objects"][0]["changes"]
    assert changes == [{"field": "spec.replicas", "before": 4, "after": 9}]
    assert stage.workloads.writes == []


async def test_what_changes_between_the_yes_and_the_doing_is_not_done(stage: Stage) -> None:
    held = await asked(stage)
    await decider(stage).approve(held, make_call(PERSON), held.plan_hash or "")
    stage.workloads.replace(replicas=4)
    await stage.work()
    ended = await stage.only()
    assert (ended.state, ended.error.code if ended.error else None) == (State.CANCELLED, "STALE_PLAN")
    assert stage.workloads.writes == []


async def test_after_its_time_nobody_can_approve(stage: Stage) -> None:
    held = await asked(stage)
    stage.clock.advance(PolicySettings().approval_seconds)
    with pytest.raises(InvalidState):
        await decider(stage).approve(held, make_call(PERSON), held.plan_hash or "")


async def test_an_operator_at_the_machine_decides_too(stage: Stage) -> None:
    held = await asked(stage)
    rejected = await decider(stage).reject(held, System("cli", "approvals reject", "root"), "not now")
    assert rejected.state is State.CANCELLED
    assert rejected.error is not None
    assert rejected.error.message == "A person rejected the request: not now"


async def test_what_was_done_is_taken_back_through_the_same_guardrails(stage: Stage) -> None:
    await stage.scale(5)
    await stage.work()
    done = await stage.only()
    await decider(stage).rollback(done, make_call())
    await stage.work()
    undone = await stage.only()
    assert (undone.state, stage.workloads.replicas()) == (State.ROLLED_BACK, 3)


async def test_nothing_is_taken_back_while_it_is_paused(stage: Stage) -> None:
    await stage.scale(5)
    await stage.work()
    await stage.ledger.pause("ws-123", make_call(), None)
    with pytest.raises(PolicyDenied):
        await decider(stage).rollback(await stage.only(), make_call())
    assert stage.workloads.replicas() == 5


async def test_taking_back_leaves_alone_what_others_changed_since(stage: Stage) -> None:
    await stage.scale(5)
    await stage.work()
    stage.workloads.replace(replicas=7)
    await decider(stage).rollback(await stage.only(), make_call())
    await stage.work()
    ended = await stage.only()
    assert (ended.state, stage.workloads.replicas()) == (State.FAILED, 7)
    assert ended.result is not None
    assert "7 by now" in ended.result["undo_skipped"][0]["reason"]


async def test_a_plan_that_was_seen_is_carried_out_exactly(stage: Stage) -> None:
    shown = await stage.scale(5, dry_run=True)
    assert shown.data.plan is not msgspec.UNSET
    reply = await stage.scale(5, plan_hash=shown.data.plan.plan_hash)
    assert reply.status == 202
    await stage.work()
    assert stage.workloads.replicas() == 5


async def test_another_plan_another_account_or_a_later_hour_is_stale(stage: Stage) -> None:
    shown = await stage.scale(5, dry_run=True)
    assert shown.data.plan is not msgspec.UNSET
    seen = shown.data.plan.plan_hash
    with pytest.raises(StalePlan) as refused:
        await stage.scale(4, plan_hash=seen)
    assert refused.value.details.fresh_plan_hash != seen  # type: ignore[attr-defined]
    with pytest.raises(StalePlan):
        await stage.scale(5, plan_hash=seen, call=make_call(make_caller(account_id="sa-other")))
    stage.clock.advance(timedelta(hours=1).total_seconds())
    with pytest.raises(StalePlan):
        await stage.scale(5, plan_hash=seen)
    assert await stage.untouched()


async def test_a_caller_may_ask_for_a_person_but_never_waive_one(stage: Stage) -> None:
    reply = await stage.scale(4, confirmation_required=True)
    assert reply.data.status == "pending_approval"
    reply = await stage.scale(9, confirmation_required=False)
    assert reply.data.status == "pending_approval"


async def test_a_lost_answers_twin_gets_the_first_operation(stage: Stage) -> None:
    first = await stage.scale(5, call=make_call(key="traffic-1"))
    await stage.work()
    again = await stage.scale(5, call=make_call(key="traffic-1"))
    assert (again.status, again.operation_id, again.data) == (202, first.operation_id, first.data)
