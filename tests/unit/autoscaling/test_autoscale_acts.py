"""From the call to the pods: what is measured decides, whatever is claimed."""

from datetime import timedelta

import msgspec
import pytest

from opsapi.applications.autoscaling_model import ClaimedMetrics, ScalingAction, ScalingPolicy, Trigger
from opsapi.applications.errors import AutoscalerConflict, ManagedExternally, ProtectedNamespace
from opsapi.kit.caller import AccountKind, AuditTrail
from opsapi.kit.errors import DependencyUnavailable, InvalidState, OpsError, PolicyDenied, ValidationFailed
from opsapi.operations.errors import StalePlan
from opsapi.operations.model import Outcome, State
from opsapi.operations.proposal import plan_hash
from opsapi.policy.model import Limits, PolicySettings
from opsapi.telemetry.model import Traffic
from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL
from opsapi.workspaces.model import Mode
from opsapi.workspaces.objects import DAEMON_SET, POD, STATEFUL_SET, OwnerReference
from support.acting import make_call, make_caller
from support.autoscaling import APP, AutoscaleStage, make_pod
from support.workloads import make_autoscaler, make_deployment

CLAIMED = ClaimedMetrics(cpu_percentage=85.3, memory_percentage=67.2, request_rate=245.8)


async def refused(stage: AutoscaleStage, error: type[OpsError], **more: object) -> OpsError:
    with pytest.raises(error) as caught:
        await stage.autoscale(**more)  # type: ignore[arg-type]
    assert await stage.untouched()
    return caught.value


async def test_load_beyond_the_threshold_grows_it_and_the_event_tells(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.measure(85.3, 85.3, 85.3)
    reply = await stage.autoscale(current_metrics=CLAIMED)
    data = reply.data
    assert (reply.status, data.status, data.scaling_action) == (202, "scaling", ScalingAction.UP)
    assert (data.application_id, data.previous_replicas, data.new_replicas) == (APP, 3, 5)
    assert data.reason == "CPU usage of 85.3% exceeded the 80% threshold: (3 ready x 85.3%) / 55% = 5 replicas"
    assert data.estimated_completion is not None
    assert reply.warnings == []
    assert data.estimated_completion - data.triggered_at == timedelta(minutes=2)
    await stage.work()
    ended = await stage.only()
    assert (ended.action, ended.state, ended.outcome) == ("autoscale", State.COMPLETED, Outcome.CHANGED)
    assert stage.workloads.writes == [("web", 5)]
    (event,) = stage.workloads.events.values()
    assert event.action == "autoscale"
    assert ended.reason == data.reason


async def test_the_event_of_autoscaling_is_announced_once_it_is_verified(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.measure(90, 90, 90)
    reply = await stage.autoscale()
    await stage.work()
    ended = await stage.only()
    procedure = stage.procedures.newest("autoscale")
    (told,) = procedure.announce(ended, State.COMPLETED)
    assert told.type == "internal.autoscale.triggered"
    assert told.data == {
        "workspace_id": "ws-123",
        "application_id": APP,
        "operation_id": reply.operation_id,
        "scaling_action": "scale_up",
        "previous_replicas": 3,
        "new_replicas": 5,
        "reason": reply.data.reason,
        "requested_by": "sa-agent",
    }
    assert not procedure.announce(ended, State.FAILED)


async def test_a_claim_moves_nothing_where_the_measurement_is_between(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.measure(41.2, 41.2, 41.2)
    reply = await stage.autoscale(current_metrics=CLAIMED)
    assert (reply.status, reply.data.scaling_action, reply.data.new_replicas) == (200, ScalingAction.NONE, 3)
    assert reply.data.reason == "CPU usage of 41.2% is between the thresholds of 30% and 80%"
    assert reply.warnings == [
        "current_metrics claims 85.3% for cpu_threshold; 41.2% was measured (fake), and that counts"
    ]
    assert await stage.untouched()


async def test_without_a_measurement_nothing_is_done_on_the_callers_word(autoscale_stage: AutoscaleStage) -> None:
    error = await refused(autoscale_stage, DependencyUnavailable, current_metrics=CLAIMED)
    assert msgspec.to_builtins(error.details)["component"] == "metrics"
    autoscale_stage.measure(85, 85, 85)
    autoscale_stage.metrics.away = "prometheus does not answer"
    error = await refused(autoscale_stage, DependencyUnavailable, current_metrics=CLAIMED)
    assert "prometheus does not answer" in error.message


async def test_an_old_reading_says_nothing_about_now(autoscale_stage: AutoscaleStage) -> None:
    autoscale_stage.measure(99, 99, 99, minutes_ago=6)
    error = await refused(autoscale_stage, DependencyUnavailable)
    assert "the newest reading is of 2024-01-20T15:24:00Z" in error.message


async def test_what_requests_nothing_has_no_percentage(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.run(3, requests={"memory": "64Mi"})
    stage.measure(85, 85, 85)
    reply = await stage.autoscale()
    assert reply.data.scaling_action is ScalingAction.NONE
    assert reply.data.reason == "A container requests no cpu, so no percentage of it is defined"
    assert {partial.field for partial in reply.partial} >= {"measured.value", "estimated_completion"}


async def test_pods_that_start_are_awaited(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.run(5, ready=3)
    stage.measure(85, 85, 85)
    reply = await stage.autoscale()
    assert reply.data.scaling_action is ScalingAction.NONE
    assert "2 of 5 pods are not ready or not measured yet" in reply.data.reason


async def test_idle_replicas_go_once_the_history_allows_it(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.run(8)
    stage.measure(*[10.0] * 8)
    reply = await stage.autoscale(caller=make_caller("application:write", kind=AccountKind.PERSON))
    assert (reply.data.scaling_action, reply.data.new_replicas) == (ScalingAction.NONE, 8)
    assert "nothing is taken away without a history" in reply.data.reason
    stage.remember(20.0, pods=8)
    reply = await stage.autoscale(caller=make_caller("application:write", kind=AccountKind.PERSON))
    assert (reply.data.scaling_action, reply.data.new_replicas) == (ScalingAction.DOWN, 3)
    assert reply.data.reason.endswith("= 2 replicas; the highest wish of the last 5 minutes was 3")
    await stage.work()
    assert stage.workloads.writes == [("web", 3)]


async def test_a_peak_within_the_window_keeps_the_replicas(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.run(8)
    stage.measure(*[10.0] * 8)
    stage.remember(10.0, pods=8)
    stage.measure(*[60.0] * 8, minutes_ago=3.5)
    reply = await stage.autoscale()
    assert reply.data.scaling_action is ScalingAction.NONE
    assert "within the last 5 minutes as many as 8 replicas were needed" in reply.data.reason


async def test_an_agent_that_would_take_too_many_waits_for_a_person(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.run(8)
    stage.measure(*[10.0] * 8)
    stage.remember(10.0, pods=8)
    reply = await stage.autoscale()
    assert (reply.status, reply.data.status, reply.data.new_replicas) == (202, "pending_approval", 2)
    waiting = await stage.only()
    assert waiting.state is State.PENDING_APPROVAL
    stage.metrics.away = "gone"
    replan = stage.procedures.newest("autoscale").replan
    assert replan is not None
    again = await replan(waiting)
    assert (again.parameters["replicas"], again.action) == (2, "autoscale")
    assert plan_hash(again, "sa-agent") == waiting.plan_hash


async def test_memory_is_measured_against_its_request(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.measure(10, 10, 10, memory=60 * 2**20)
    reply = await stage.autoscale(Trigger.MEMORY)
    assert (reply.data.scaling_action, reply.data.new_replicas) == (ScalingAction.UP, 6)
    assert reply.data.reason.startswith("Memory usage of 93.8% exceeded the 80% threshold")


async def test_a_rate_needs_to_know_what_one_pod_serves(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    error = await refused(stage, ValidationFailed, trigger=Trigger.REQUEST_RATE)
    assert "scaling_policy.requests_per_pod" in msgspec.to_builtins(error.details)["fields"]
    stage.metrics.serve("web", Traffic(270.0, 0.0, None, None), at=stage.inventory.now())
    policy = ScalingPolicy(requests_per_pod=100)
    reply = await stage.autoscale(Trigger.REQUEST_RATE, policy=policy, current_metrics=CLAIMED)
    assert (reply.data.scaling_action, reply.data.new_replicas) == (ScalingAction.UP, 5)
    assert reply.warnings == []


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (ScalingPolicy(scale_up_threshold=99), "scaling_policy.scale_up_threshold"),
        (ScalingPolicy(scale_up_threshold=40), "scaling_policy.scale_up_threshold"),
        (ScalingPolicy(scale_down_threshold=2), "scaling_policy.scale_down_threshold"),
        (ScalingPolicy(scale_up_threshold=50, scale_down_threshold=55), "scaling_policy.scale_down_threshold"),
        (ScalingPolicy(cooldown_period="1s"), "scaling_policy.cooldown_period"),
        (ScalingPolicy(cooldown_period="2d"), "scaling_policy.cooldown_period"),
        (ScalingPolicy(cooldown_period="soon"), "scaling_policy.cooldown_period"),
    ],
)
async def test_what_is_out_of_policys_ranges_is_refused_by_name(
    autoscale_stage: AutoscaleStage, policy: ScalingPolicy, field: str
) -> None:
    autoscale_stage.measure(85, 85, 85)
    error = await refused(autoscale_stage, ValidationFailed, policy=policy)
    assert list(msgspec.to_builtins(error.details)["fields"]) == [field]


async def test_an_autoscaler_keeps_its_replicas_and_nothing_is_measured(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.measure(85, 85, 85)
    stage.workloads.put(make_autoscaler())
    error = await refused(stage, AutoscalerConflict)
    assert msgspec.to_builtins(error.details)["autoscaler"] == "web"
    await refused(stage, AutoscalerConflict, dry_run=True)
    assert stage.metrics.asked == []


async def test_what_argo_keeps_is_left_to_its_source(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    held = stage.workloads.deployments["shop", "web"]
    labels = held.metadata.labels | {"argocd.argoproj.io/instance": "shop"}
    stage.workloads.put(msgspec.structs.replace(held, metadata=msgspec.structs.replace(held.metadata, labels=labels)))
    stage.measure(85, 85, 85)
    await refused(stage, ManagedExternally)


async def test_a_daemon_set_has_no_replicas_to_set(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    held = make_deployment("agent", labels={APPLICATION_ID_LABEL: "app-agent"})
    stage.inventory.put(DAEMON_SET, held)
    error = await refused(stage, InvalidState, application="app-agent")
    assert msgspec.to_builtins(error.details) == {
        "resource_id": "app-agent",
        "state": "DaemonSet",
        "allowed_from": ["Deployment", "StatefulSet"],
    }


async def test_a_system_namespace_is_left_alone(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.workloads.put(make_deployment("dns", "kube-system", labels={APPLICATION_ID_LABEL: "app-dns"}))
    await refused(stage, ProtectedNamespace, application="app-dns")


async def test_an_observed_workspace_is_not_scaled_and_a_dry_run_says_what_would_be(
    autoscale_stage: AutoscaleStage,
) -> None:
    stage = autoscale_stage
    stage.measure(85.3, 85.3, 85.3)
    stage.arrange(mode=Mode.OBSERVE)
    await refused(stage, PolicyDenied)
    reply = await stage.autoscale(dry_run=True)
    assert (reply.status, reply.data.status, reply.data.new_replicas) == (200, "planned", 5)
    assert await stage.untouched()


async def test_a_plan_is_carried_out_as_shown_or_not_at_all(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.measure(85.3, 85.3, 85.3)
    shown = (await stage.autoscale(dry_run=True)).data.plan
    assert not isinstance(shown, msgspec.UnsetType)
    assert (shown.allowed, shown.pods_affected.added) == (True, 2)
    stage.inventory.at += timedelta(minutes=1)
    stage.measure(140, 140, 140)
    with pytest.raises(StalePlan):
        await stage.autoscale(plan_hash=shown.plan_hash)
    stage.inventory.at += timedelta(minutes=1)
    stage.measure(86, 86, 86)
    reply = await stage.autoscale(plan_hash=shown.plan_hash)
    assert reply.data.new_replicas == 5


async def test_a_callers_cooldown_only_lengthens_policys(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    limits = Limits(cooldown_seconds=300)
    stage.policy = PolicySettings(limits=limits)
    stage.run()
    stage.measure(85.3, 85.3, 85.3)
    await stage.autoscale()
    await stage.work()
    for pause, minutes, allowed in (("1m", 4, False), ("1m", 6, True), ("10m", 6, False), ("10m", 11, True)):
        stage.run(5)
        started_at = stage.inventory.at
        stage.inventory.at += timedelta(minutes=minutes)
        stage.measure(*[90.0] * 5)
        policy = ScalingPolicy(cooldown_period=pause)
        plan = (await stage.autoscale(policy=policy, dry_run=True)).data.plan
        assert not isinstance(plan, msgspec.UnsetType)
        rules = [refusal.details["rule"] for refusal in plan.refusals]
        assert rules == ([] if allowed else ["cooldown"]), (pause, minutes)
        stage.inventory.at = started_at


async def test_even_a_persons_own_cooldown_holds(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    person = make_caller("application:write", account_id="sa-person", kind=AccountKind.PERSON)
    stage.measure(85.3, 85.3, 85.3)
    await stage.autoscale(caller=person)
    await stage.work()
    stage.run(5)
    stage.inventory.at += timedelta(minutes=1)
    stage.measure(*[90.0] * 5)
    with pytest.raises(PolicyDenied) as caught:
        await stage.autoscale(caller=person, policy=ScalingPolicy(cooldown_period="5m"))
    assert msgspec.to_builtins(caught.value.details)["rule"] == "cooldown"
    assert (await stage.autoscale(caller=person)).status == 202


async def test_a_stateful_set_is_scaled_by_the_same_steps(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.workloads.remove()
    held = make_deployment("db", labels={APPLICATION_ID_LABEL: "app-db"})
    stage.workloads.deployments["shop", "db"] = held
    stage.inventory.put(STATEFUL_SET, held)
    for ordinal in range(3):
        pod = make_pod(f"db-{ordinal}", held.metadata.uid)
        reference = OwnerReference(kind="StatefulSet", name="db", uid=held.metadata.uid, controller=True)
        meta = msgspec.structs.replace(pod.metadata, owner_references=(reference,))
        stage.inventory.put(POD, msgspec.structs.replace(pod, metadata=meta))
        stage.metrics.measure(f"db-{ordinal}", "app", stage.inventory.now(), cpu=85.3, memory=1)
    stage.arrange()
    stage.workloads.inventory = None
    reply = await stage.autoscale(application="app-db")
    assert reply.data.new_replicas == 5
    await stage.work()
    ended = await stage.only()
    assert (ended.state, ended.parameters["kind"]) == (State.COMPLETED, "StatefulSet")
    assert stage.workloads.writes == [("db", 5)]


async def test_a_repeated_call_is_answered_from_what_it_began(autoscale_stage: AutoscaleStage) -> None:
    stage = autoscale_stage
    stage.measure(85.3, 85.3, 85.3)
    call = make_call(make_caller("application:write"), "autoscale_application")
    call = msgspec.structs.replace(call, idempotency_key="traffic-1")
    first = await stage.autoscale(call=call)
    await stage.work()
    stage.metrics.away = "gone"
    again = await stage.autoscale(call=msgspec.structs.replace(call, audit=AuditTrail()))
    assert (again.status, again.data) == (202, first.data)
