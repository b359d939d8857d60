"""auto_remediate, from the call to the pods and back to the incident's timeline."""

import asyncio
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.adapters.sql.tables import outbox_events
from opsapi.incidents.remediation_model import ACTION
from opsapi.kit.caller import System
from opsapi.kit.errors import InvalidState, PolicyDenied, ResourceNotFound, ValidationFailed
from opsapi.operations.errors import OperationInProgress, StalePlan
from opsapi.operations.model import Failure, Operation, Outcome, State, UndoState
from opsapi.operations.ports import OperationFilter
from opsapi.operations.proposal import plan_hash
from opsapi.policy.model import Limits, PolicySettings
from opsapi.workspaces.model import Mode
from opsapi.workspaces.objects import AUTOSCALER
from support.healing import DEPLOYMENTS, container, crashed
from support.inventory import FakeCluster, FakeInventory, make_workspace
from support.remediation import Emergency
from support.workloads import make_autoscaler


async def hung(emergency: Emergency, **changes: Any) -> str:
    """Three replicas of which one hangs; the incident about it."""
    emergency.deploy(replicas=3, ready=2)
    emergency.pod("web-1")
    emergency.pod("web-2")
    emergency.pod("web-3", ready=False)
    emergency.behave = emergency.pods_come
    return (await emergency.report(**changes)).data.incident_id


async def events(emergency: Emergency) -> list[tuple[str, dict[str, Any], list[str]]]:
    columns = outbox_events.c
    statement = sa.select(columns.type, columns.data, columns.channels).order_by(columns.occurred_at, columns.id)
    async with emergency.database.read() as connection:
        rows = (await connection.execute(statement)).all()
    return [(row.type, row.data, row.channels) for row in rows if row.type.startswith("internal.incident")]


async def test_restart_and_scale_restarts_what_hangs_adds_replicas_and_verifies(emergency: Emergency) -> None:
    incident_id = await hung(emergency, symptoms=["pod_crashes"])
    reply = await emergency.manage(incident_id, "auto_remediate", remediation_strategy="restart_and_scale")
    answer = reply.data
    assert (reply.status, answer.status, answer.action) == (202, "in_progress", "auto_remediate")
    assert isinstance(answer.remediation_steps, list)
    assert [(step.step, step.status, step.estimated_duration) for step in answer.remediation_steps] == [
        ("restart_failed_pods", "pending", "30s"),
        ("scale_healthy_replicas", "pending", "2m"),
        ("verify_health", "pending", "60s"),
    ]
    ended = await emergency.work()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert emergency.objects.targets("evict") == ["pods/shop/web-3"]
    assert emergency.replicas() == 4
    assert ended.result is not None
    assert ended.result["scaled"] == [{"application_id": answer_application(ended.parameters), "replicas": 4}]
    assert set(ended.result) >= {"traffic_before", "pods", "verification"}


def answer_application(parameters: dict[str, Any]) -> str:
    return str(parameters["applications"][0])


async def test_the_incident_tells_of_the_beginning_and_the_end_once(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    details = {"symptoms": ["pod_crashes"], "severity": "high", "type": "application_failure"}
    await emergency.manage(incident_id, "auto_remediate", incident_details=details, remediation_strategy="restart")
    begun = (await emergency.look_at(incident_id)).data
    assert [entry.event for entry in begun.timeline] == ["opened", "remediation_started"]
    assert begun.timeline[1].details["symptoms"] == ["pod_crashes"]
    assert begun.timeline[1].details["reported"] == details
    assert [operation.status for operation in begun.operations] == ["queued"]
    await emergency.work()
    for _ in range(3):
        await emergency.watch.look()
    ended = (await emergency.look_at(incident_id)).data
    assert [entry.event for entry in ended.timeline] == ["opened", "remediation_started", "remediation_ended"]
    assert ended.timeline[2].details["outcome"] == "changed"
    assert [operation.status for operation in ended.operations] == ["completed"]
    assert ended.state == "firing"
    told = [(kind, data["action"], data["incident_id"]) for kind, data, _ in await events(emergency)]
    assert told == [
        ("internal.incident.opened", None, incident_id),
        ("internal.incident.auto_remediated", "auto_remediate", incident_id),
    ]


async def test_what_does_not_help_is_undone_and_goes_to_people(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    emergency.behave = lambda: emergency.pods_come(ready=False)
    await emergency.manage(incident_id, "auto_remediate", remediation_strategy="scale")
    ended = await emergency.work()
    assert (ended.state, ended.step("scale_healthy_replicas").undo.state) == (State.ROLLED_BACK, UndoState.UNDONE)  # type: ignore[union-attr]
    assert emergency.replicas() == 3
    await emergency.watch.look()
    told = (await emergency.look_at(incident_id)).data
    assert told.state == "escalated"
    assert [entry.event for entry in told.timeline][-2:] == ["remediation_ended", "escalated"]
    kind, data, channels = (await events(emergency))[-1]
    assert (kind, channels, data["operation_id"]) == ("internal.incident.escalated", ["slack:#ops"], ended.id)
    await emergency.watch.look()
    assert len((await emergency.look_at(incident_id)).data.timeline) == len(told.timeline)


async def test_what_may_not_be_done_by_itself_goes_to_people_too(emergency: Emergency) -> None:
    emergency.deploy(replicas=2, ready=0)
    for name in ("web-1", "web-2"):
        emergency.pod(name, ready=False, container_status=crashed())
    incident_id = (await emergency.report()).data.incident_id
    await emergency.manage(incident_id, "auto_remediate")
    ended = await emergency.work()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.PROPOSED)
    assert [step.name for step in ended.steps] == ["identify_unhealthy_pods"]
    await emergency.watch.look()
    assert (await emergency.look_at(incident_id)).data.state == "escalated"
    assert not emergency.objects.writes


async def test_more_pods_of_what_crashes_are_not_added(emergency: Emergency) -> None:
    emergency.deploy(replicas=3, ready=2)
    emergency.pod("web-1")
    emergency.pod("web-2", ready=False, container_status=crashed(waiting="ImagePullBackOff"))
    incident_id = (await emergency.report()).data.incident_id
    reply = await emergency.manage(incident_id, "auto_remediate", remediation_strategy="scale", dry_run=True)
    assert isinstance(reply.data.plan, msgspec.Struct)
    (told,) = reply.data.plan.details["applications"]
    assert (told["scale"], told["remedy"]) == (None, None)
    assert "more replicas do not cure it" in told["not_scaled"]


async def test_by_itself_it_adds_replicas_to_what_is_well_and_loaded(emergency: Emergency) -> None:
    emergency.deploy(replicas=2)
    emergency.pod("web-1")
    emergency.pod("web-2")
    emergency.behave = emergency.pods_come
    incident_id = (await emergency.report(symptoms=["high_latency"])).data.incident_id
    await emergency.manage(incident_id, "auto_remediate")
    ended = await emergency.work()
    assert [step.name for step in ended.steps] == ["scale_healthy_replicas", "verify_health"]
    assert (ended.outcome, emergency.replicas()) == (Outcome.CHANGED, 3)


async def test_by_itself_it_restarts_what_hangs_alone(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    await emergency.manage(incident_id, "auto_remediate")
    ended = await emergency.work()
    assert [step.name for step in ended.steps] == ["restart_failed_pods", "verify_health"]
    assert (ended.outcome, emergency.replicas()) == (Outcome.CHANGED, 3)


async def test_an_ill_release_is_rolled_back(emergency: Emergency) -> None:
    emergency.deploy(revision=2, ready=1)
    old = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container(image="shop/web:1.0")]}}
    emergency.revise("web", 1, old, ago=7200)
    emergency.pod("web-old-1", revision=1)
    emergency.pod("web-new-1", revision=2, ready=False, container_status=crashed())
    incident_id = (await emergency.report()).data.incident_id
    reply = await emergency.manage(incident_id, "auto_remediate", remediation_strategy="rollback")
    assert isinstance(reply.data.remediation_steps, list)
    assert [step.step for step in reply.data.remediation_steps] == ["rollback_release", "verify_health"]


async def test_where_an_autoscaler_has_the_replicas_what_hangs_is_restarted_alone(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    emergency.inventory.put(AUTOSCALER, make_autoscaler())
    reply = await emergency.manage(incident_id, "auto_remediate", remediation_strategy="restart_and_scale")
    assert isinstance(reply.data.remediation_steps, list)
    assert [step.step for step in reply.data.remediation_steps] == ["restart_failed_pods", "verify_health"]
    assert any("is not scaled" in warning for warning in reply.warnings)


async def test_a_dry_run_says_what_would_be_done_and_changes_nothing(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    reply = await emergency.manage(
        incident_id, "auto_remediate", remediation_strategy="restart_and_scale", dry_run=True
    )
    assert (reply.status, reply.data.status) == (200, "planned")
    plan = reply.data.plan
    assert isinstance(plan, msgspec.Struct)
    assert (plan.allowed, plan.needs_approval) == (True, [])
    (told,) = plan.details["applications"]
    assert (told["remedy"], told["pods"]) == ("restart", ["web-3"])
    assert told["scale"] == {"previous_replicas": 3, "new_replicas": 4}
    assert await emergency.ledger.find(OperationFilter(workspaces=None)) == []
    assert len((await emergency.look_at(incident_id)).data.timeline) == 1
    begun = await emergency.manage(
        incident_id, "auto_remediate", remediation_strategy="restart_and_scale", plan_hash=plan.plan_hash
    )
    assert begun.status == 202


async def test_a_plan_that_is_not_what_would_be_done_is_stale(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    with pytest.raises(StalePlan):
        await emergency.manage(incident_id, "auto_remediate", plan_hash="0" * 64)


async def test_the_permission_of_the_remedy_is_needed_besides(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    for held, needed in (
        (("incident:write",), "workspace:write"),
        (("incident:write", "workspace:read"), "workspace:write"),
        (("incident:write", "workspace:write"), "workspace:admin"),
        (("incident:write", "workspace:admin@ws-other"), "workspace:write"),
    ):
        with pytest.raises(InsufficientInternalPermissions) as refused:
            await emergency.manage(incident_id, "auto_remediate", *held, remediation_strategy="restart")
        assert msgspec.to_builtins(refused.value.details)["required_permission"] == needed
    assert await emergency.ledger.find(OperationFilter(workspaces=None)) == []


async def test_scaling_needs_no_more_than_scaling_does(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    held = ("incident:write@ws-123", "workspace:write@ws-123")
    reply = await emergency.manage(incident_id, "auto_remediate", *held, remediation_strategy="scale")
    assert reply.status == 202


async def test_an_application_of_another_workspace_does_not_exist(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    elsewhere = FakeInventory("ws-other")
    other = FakeCluster(make_workspace("ws-other"), elsewhere)
    emergency.clusters.opened["ws-other"] = other
    elsewhere.put(AUTOSCALER, make_autoscaler())
    details = {"affected_applications": ["app-elsewhere"]}
    with pytest.raises(ResourceNotFound) as refused:
        await emergency.manage(incident_id, "auto_remediate", incident_details=details)
    assert refused.value.code == "RESOURCE_NOT_FOUND"


async def test_without_any_application_there_is_nothing_to_remedy(emergency: Emergency) -> None:
    incident_id = (await emergency.report(affected_applications=[])).data.incident_id
    with pytest.raises(ValidationFailed):
        await emergency.manage(incident_id, "auto_remediate")


async def test_several_applications_wait_for_a_person(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    emergency.deploy("cart", replicas=2, ready=1)
    emergency.pod("cart-1", "cart")
    emergency.pod("cart-2", "cart", ready=False)
    details = {"affected_applications": ["web", "cart"]}
    reply = await emergency.manage(
        incident_id, "auto_remediate", incident_details=details, remediation_strategy="restart"
    )
    assert (reply.status, reply.data.status) == (202, "pending_approval")
    operation = await emergency.only()
    assert operation.approval is not None
    assert operation.approval.rules == ("several_applications",)
    again = await emergency.procedures.newest(ACTION).replan(operation)  # type: ignore[misc]
    assert list(again.parameters["applications"]) == operation.parameters["applications"]
    assert plan_hash(again, "sa-agent") == operation.plan_hash


async def test_confirmation_required_only_adds_a_brake(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    reply = await emergency.manage(incident_id, "auto_remediate", confirmation_required=True)
    assert reply.data.status == "pending_approval"
    await emergency.watch.look()
    assert (await emergency.look_at(incident_id)).data.state == "firing"


@pytest.mark.parametrize(("end", "state"), [("cancel", "firing"), ("reject", "firing"), ("expire", "escalated")])
async def test_what_a_person_stopped_stays_and_what_nobody_decided_goes_to_people(
    emergency: Emergency, end: str, state: str
) -> None:
    incident_id = await hung(emergency)
    await emergency.manage(incident_id, "auto_remediate", confirmation_required=True)
    operation, by = await emergency.only(), System("cli", "decide", "root")
    if end == "cancel":
        await emergency.ledger.cancel(operation.id, by)
    elif end == "reject":
        await emergency.ledger.reject(operation.id, by, Failure(code="APPROVAL_REJECTED", message="no"))
    else:
        emergency.clock.advance(emergency.policy.approval_seconds)
        assert await emergency.ledger.expire(emergency.clock.now()) == 1
        emergency.settings = msgspec.structs.replace(emergency.settings, escalate_after_seconds=0)
        emergency.arrange()
    await emergency.watch.look()
    told = (await emergency.look_at(incident_id)).data
    assert told.state == state
    assert told.timeline[2].event == "remediation_ended"


async def test_policy_stands_above_an_incident(emergency: Emergency) -> None:
    emergency.policy = PolicySettings(limits=Limits(changes_per_hour_account=0))
    emergency.arrange()
    incident_id = await hung(emergency)
    with pytest.raises(PolicyDenied):
        await emergency.manage(incident_id, "auto_remediate")


async def test_in_a_workspace_that_only_observes_nothing_is_remedied(emergency: Emergency) -> None:
    emergency.mode = Mode.OBSERVE
    emergency.arrange()
    incident_id = await hung(emergency)
    with pytest.raises(PolicyDenied):
        await emergency.manage(incident_id, "auto_remediate")


async def test_of_two_remediations_at_once_one_is_begun(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    ends = await asyncio.gather(
        *(emergency.manage(incident_id, "auto_remediate") for _ in range(3)), return_exceptions=True
    )
    assert sorted(type(end).__name__ for end in ends) == ["OperationInProgress", "OperationInProgress", "Reply"]
    assert isinstance(next(end for end in ends if isinstance(end, Exception)), OperationInProgress)


async def test_what_is_closed_is_not_remedied(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    await emergency.manage(incident_id, "resolve")
    with pytest.raises(InvalidState):
        await emergency.manage(incident_id, "auto_remediate")


async def test_an_operation_whose_beginner_died_before_the_timeline_was_told_is_adopted(emergency: Emergency) -> None:
    incident_id = await hung(emergency)

    async def dies(operation: Operation, claimed: dict[str, object]) -> None:
        raise OSError("kill -9")

    emergency.remediating._link = dies  # type: ignore[method-assign]
    with pytest.raises(OSError, match="kill -9"):
        await emergency.manage(incident_id, "auto_remediate")
    emergency.arrange()
    emergency.behave = emergency.pods_come
    await emergency.work()
    emergency.clock.advance(30)
    await emergency.watch.look()
    told = (await emergency.look_at(incident_id)).data
    assert [entry.event for entry in told.timeline] == ["opened", "remediation_started", "remediation_ended"]


async def test_a_look_in_the_middle_of_the_beginning_leaves_the_telling_to_who_began(emergency: Emergency) -> None:
    """Only the call knows what the caller reported."""
    incident_id = await hung(emergency)
    link = emergency.remediating._link

    async def slowly(operation: Operation, claimed: dict[str, object]) -> None:
        await emergency.watch.look()
        await link(operation, claimed)
        await link(operation, {})

    emergency.remediating._link = slowly  # type: ignore[method-assign]
    await emergency.manage(incident_id, "auto_remediate", note="it hangs")
    told = (await emergency.look_at(incident_id)).data
    assert [entry.event for entry in told.timeline] == ["opened", "remediation_started"]
    assert told.timeline[-1].details["reported"] == {"note": "it hangs"}


async def test_a_failed_remediation_of_what_was_merged_meanwhile_escalates_the_survivor(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    emergency.behave = lambda: emergency.pods_come(ready=False)
    await emergency.manage(incident_id, "auto_remediate", remediation_strategy="scale")
    other = (await emergency.report(type="node_failure", affected_applications=[])).data.incident_id
    await emergency.manage(incident_id, "merge", into=other)
    await emergency.work()
    await emergency.watch.look()
    assert (await emergency.look_at(incident_id)).data.state == "merged"
    assert (await emergency.look_at(other)).data.state == "escalated"


async def test_a_call_whose_answer_was_lost_is_answered_again(emergency: Emergency) -> None:
    incident_id = await hung(emergency)
    call = msgspec.structs.replace(emergency.call(), idempotency_key="remedy-1")
    first = await emergency.manage(incident_id, "auto_remediate", call=call)
    emergency.behave()
    again = await emergency.manage(
        incident_id, "auto_remediate", call=msgspec.structs.replace(emergency.call(), idempotency_key="remedy-1")
    )
    assert again.data == first.data
    assert emergency.objects.find(DEPLOYMENTS, "shop", "web") is not None
