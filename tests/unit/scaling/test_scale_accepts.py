"""What scaling does when nothing stands against it."""

import msgspec
import pytest

from opsapi.applications.ports import AutoscalerBounds
from opsapi.applications.scaling import bounds_of
from opsapi.applications.scaling_model import AutoScaleConfig
from opsapi.operations.errors import OperationInProgress
from opsapi.operations.model import Outcome, State, StepState
from support.acting import NOON, make_call
from support.scaling import Stage
from support.workloads import make_autoscaler

CONFIG = AutoScaleConfig(min_replicas=2, max_replicas=10, target_cpu_percentage=70, scale_down_delay="5m")


async def test_the_call_answers_at_once_with_an_operation_to_follow(stage: Stage) -> None:
    call = make_call()
    reply = await stage.scale(5, reason="Increased traffic detected", call=call)
    data = reply.data
    assert reply.status == 202
    assert (data.deployment_name, data.workspace_id, data.previous_replicas, data.new_replicas, data.status) == (
        "web",
        "ws-123",
        3,
        5,
        "scaling",
    )
    assert data.started_at == NOON
    assert data.estimated_completion is not None
    assert (data.estimated_completion - NOON).total_seconds() == 120
    operation = await stage.only()
    assert reply.operation_id == data.operation_id == operation.id
    assert operation.state is State.QUEUED
    assert stage.workloads.writes == []
    assert call.audit.committed
    assert call.audit.operation_id == operation.id


async def test_the_worker_sets_the_replicas_once_verifies_and_tells_the_cluster(stage: Stage) -> None:
    await stage.scale(5, reason="Increased traffic detected")
    await stage.work()
    operation = await stage.only()
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED)
    assert operation.result == {"previous_replicas": 3, "new_replicas": 5}
    assert stage.workloads.writes == [("web", 5)]
    assert [(step.name, step.state) for step in operation.steps] == [
        ("set_replicas", StepState.COMPLETED),
        ("verify_readiness", StepState.COMPLETED),
    ]
    assert operation.steps[1].message == "Verified: 5 of 5 replicas are ready, held for 5 s"
    (event,) = stage.workloads.events.values()
    assert operation.id in event.message
    assert "sa-agent" in event.message
    assert "Increased traffic detected" in event.message


async def test_another_call_while_it_runs_is_told_who_holds_the_application(stage: Stage) -> None:
    first = await stage.scale(5)
    with pytest.raises(OperationInProgress) as refused:
        await stage.scale(4)
    details = refused.value.details
    assert details.current_operation == "scale"  # type: ignore[attr-defined]
    assert details.current_operation_id == first.operation_id  # type: ignore[attr-defined]
    assert details.resource_id == first.data.application_id  # type: ignore[attr-defined]
    await stage.work()
    assert (await stage.scale(4)).status == 202


async def test_the_same_count_again_is_unchanged_and_begins_nothing(stage: Stage) -> None:
    reply = await stage.scale(3)
    assert reply.status == 200
    assert (reply.data.status, reply.data.outcome, reply.data.started_at) == ("unchanged", "nothing_to_do", None)
    assert {part.field for part in reply.partial} == {"started_at", "estimated_completion"}
    assert await stage.untouched()


async def test_what_a_running_operation_has_just_set_is_not_called_unchanged(stage: Stage) -> None:
    await stage.scale(5)
    stage.workloads.replace(replicas=5, manager="opsapi")
    with pytest.raises(OperationInProgress):
        await stage.scale(5)


async def test_scaling_down_in_small_steps_needs_nobody(stage: Stage) -> None:
    stage.workloads.replace(replicas=5)
    await stage.scale(3)
    await stage.work()
    assert stage.workloads.replicas() == 3
    assert (await stage.only()).state is State.COMPLETED


async def test_the_specifications_example_creates_an_autoscaler_last(stage: Stage) -> None:
    reply = await stage.scale(5, auto_scale_config=CONFIG)
    assert reply.status == 202
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.COMPLETED
    assert [step.name for step in operation.steps] == ["set_replicas", "verify_readiness", "create_autoscaler"]
    assert stage.workloads.autoscaler_writes == [("web", AutoscalerBounds(2, 10, 70, 300))]
    assert stage.workloads.replicas() == 5


async def test_an_existing_autoscalers_bounds_are_edited_first_and_replicas_clamped(stage: Stage) -> None:
    stage.workloads.put(make_autoscaler(low=2, high=4))
    config = AutoScaleConfig(min_replicas=2, max_replicas=5)
    reply = await stage.scale(6, auto_scale_config=config)
    assert (reply.data.previous_replicas, reply.data.new_replicas) == (3, 5)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.COMPLETED
    assert [step.name for step in operation.steps] == ["set_autoscaler_bounds", "set_replicas", "verify_readiness"]
    held = stage.workloads.autoscalers[("shop", "web")]
    assert bounds_of(held) == AutoscalerBounds(2, 5, 80, None)
    assert stage.workloads.replicas() == 5


async def test_bounds_alone_may_change(stage: Stage) -> None:
    stage.workloads.put(make_autoscaler(low=2, high=4))
    await stage.scale(3, auto_scale_config=AutoScaleConfig(min_replicas=3, max_replicas=6))
    await stage.work()
    operation = await stage.only()
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED)
    assert stage.workloads.writes == []
    assert operation.step("set_replicas").state is StepState.SKIPPED


async def test_a_dry_run_plans_asks_the_server_and_changes_nothing(stage: Stage) -> None:
    reply = await stage.scale(5, dry_run=True, auto_scale_config=CONFIG)
    assert reply.status == 200
    assert reply.data.status == "planned"
    outline = reply.data.plan
    assert outline is not msgspec.UNSET
    assert outline.allowed
    assert [step.step for step in outline.steps] == ["set_replicas", "verify_readiness", "create_autoscaler"]
    assert [(o.kind, o.creates, o.accepted) for o in outline.objects] == [
        ("HorizontalPodAutoscaler", True, True),
        ("Deployment", False, True),
    ]
    assert [(c.field, c.before, c.after) for c in outline.objects[1].changes] == [("spec.replicas", 3, 5)]
    assert outline.pods_affected.added == 2
    assert stage.workloads.dry_runs == 2
    assert await stage.untouched()
    assert "plan.cost_change" in {part.field for part in reply.partial}


async def test_the_plan_hash_is_of_what_would_be_done_not_of_when(stage: Stage) -> None:
    async def hash_of(replicas: int, account: str = "sa-agent") -> str:
        from support.acting import make_caller

        reply = await stage.scale(replicas, dry_run=True, call=make_call(make_caller(account_id=account)))
        assert reply.data.plan is not msgspec.UNSET
        return reply.data.plan.plan_hash

    first = await hash_of(5)
    stage.clock.advance(600)
    stage.workloads.set_status(ready=2)
    assert await hash_of(5) == first
    assert await hash_of(4) != first
    assert await hash_of(5, "sa-other") != first
    stage.workloads.replace(replicas=3)
    assert await hash_of(5) != first


async def test_what_a_dry_run_says_and_what_the_call_does_have_one_hash(stage: Stage) -> None:
    reply = await stage.scale(5, dry_run=True)
    assert reply.data.plan is not msgspec.UNSET
    await stage.scale(5)
    assert (await stage.only()).plan_hash == reply.data.plan.plan_hash


async def test_estimates_follow_what_scaling_took_before(stage: Stage) -> None:
    for i in range(5):
        await stage.scale(4 if i % 2 == 0 else 3)
        await stage.work()
    reply = await stage.scale(5)
    assert reply.data.started_at is not None
    assert reply.data.estimated_completion is not None
    # Setting took no time on the standing clock, verifying the five seconds that readiness must hold.
    assert (reply.data.estimated_completion - reply.data.started_at).total_seconds() == 5


async def test_a_reason_with_control_characters_is_kept_on_one_line(stage: Stage) -> None:
    await stage.scale(5, reason="line one\nline two\x00\ud800 end")
    assert (await stage.only()).reason == "line one line two  end"


async def test_what_is_not_ready_yet_is_warned_about(stage: Stage) -> None:
    stage.workloads.set_status(ready=1)
    reply = await stage.scale(5)
    assert reply.warnings == ["Only 1 of 3 replicas are ready now"]
