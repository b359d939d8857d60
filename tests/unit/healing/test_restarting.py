"""auto_heal restarts what hangs: by evictions, a few at a time, and only what a restart can cure."""

from typing import Any

import pytest

from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.model import Outcome, State, UndoState
from opsapi.workspaces.writing import JsonObject, OutcomeUnknown
from support.api_objects import BUDGETS, PODS
from support.healing import DEPLOYMENTS, Ward, crashed


@pytest.fixture
def hung(ward: Ward) -> Ward:
    """Two pods of two that hang since ten minutes, and controllers that replace what is evicted."""
    ward.deploy(ready=0)
    ward.pod("web-1", ready=False)
    ward.pod("web-2", ready=False)
    ward.objects.evicted = ward.replace_evicted
    return ward


async def test_what_hangs_is_evicted_one_by_one_and_then_verified(hung: Ward) -> None:
    reply = await hung.heal()
    assert (reply.status, reply.data.status) == (202, "running")
    assert [step.step for step in reply.data.steps] == ["identify_unhealthy_pods", "restart_pods", "verify_health"]
    ended = await hung.work()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert hung.objects.targets("evict") == ["pods/shop/web-1", "pods/shop/web-2"]
    assert ended.step("identify_unhealthy_pods").message == "Found 2 unhealthy pods"
    assert ended.step("restart_pods").message == "Evicted 2 of 2 unhealthy pods"
    verified = ended.result or {}
    assert "2 of 2 replicas are ready" in verified["verification"]["shop/Deployment/web"]["readiness"]
    assert verified["verification"]["shop/Deployment/web"]["traffic"]["now"] == {
        "unobserved": "no metrics are configured"
    }
    assert "not observed" in (ended.step("verify_health").message or "")
    assert len(hung.workloads.events) == 1


async def test_a_second_pod_is_not_evicted_before_the_first_is_made_good(hung: Ward) -> None:
    hung.objects.evicted = lambda pod: hung.replace_evicted(pod, ready=False)
    ended = await hung.healed()
    assert hung.objects.targets("evict") == ["pods/shop/web-1"]
    assert (ended.state, ended.outcome) == (State.FAILED, Outcome.PARTIAL)
    assert ended.error is not None
    assert "restarting does not cure it" in ended.error.message
    undo = ended.step("restart_pods").undo
    assert undo is not None
    assert (undo.state, undo.reason) == (UndoState.SKIPPED, "evictions cannot be undone")


async def test_nothing_is_done_before_the_condition_has_held(ward: Ward) -> None:
    ward.deploy(ready=1)
    ward.pod("web-1", ready=False, unready_for=299)
    ward.pod("web-2")
    ended = await ward.healed()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.PROPOSED)
    assert "has not held for 300 s yet" in (ended.steps[0].message or "")
    assert ward.objects.writes == []


async def test_a_pod_that_is_ready_again_is_left_alone(hung: Ward) -> None:
    await hung.heal()
    hung.pod("web-1")
    ended = await hung.work()
    assert hung.objects.targets("evict") == ["pods/shop/web-2"]
    pods = {one["pod"]: one["outcome"] for one in (ended.result or {})["pods"]}
    assert pods == {"shop/web-1": "skipped", "shop/web-2": "evicted"}


async def test_what_has_recovered_by_itself_needs_nothing(hung: Ward) -> None:
    await hung.heal()
    hung.pod("web-1")
    hung.pod("web-2")
    hung.count()
    ended = await hung.work()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)
    assert hung.objects.targets("evict") == []


async def test_a_disruption_budget_blocks_and_is_not_bypassed(hung: Ward) -> None:
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}
    status = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 2}
    hung.objects.put(BUDGETS, {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec, "status": status})
    ended = await hung.healed()
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "EVICTION_BLOCKED"
    assert {one["outcome"] for one in ended.error.details["pods"]} == {"blocked"}
    assert hung.objects.writes == []
    assert ended.step("restart_pods").undo is None


async def test_a_workload_that_was_scaled_down_meanwhile_does_not_count_as_healed(hung: Ward) -> None:
    def scale_down(pod: JsonObject) -> None:
        hung.objects.merge(DEPLOYMENTS, "shop", "web", {"spec": {"replicas": 1}})
        hung.replace_evicted(pod)

    hung.objects.evicted = scale_down
    ended = await hung.healed()
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "SCALED_DOWN"


async def test_a_workload_that_was_deleted_meanwhile_does_not_count_as_healed(hung: Ward) -> None:
    hung.objects.evicted = lambda _pod: hung.objects.remove(DEPLOYMENTS, "shop", "web")
    ended = await hung.healed()
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "TARGET_GONE"


async def test_pods_that_vanish_do_not_count_as_healed(ward: Ward) -> None:
    """The controller's figures say that all is well, but there are no pods."""
    ward.deploy(ready=1)
    ward.pod("web-1", ready=False)
    ward.pod("web-2")

    def vanish(_pod: JsonObject) -> None:
        ward.set_ready("web", 2)

    ward.objects.evicted = vanish
    ended = await ward.healed()
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "NOT_READY"


async def test_pods_that_restart_while_they_are_watched_are_not_healed(hung: Ward) -> None:
    turns = 0

    def restart() -> None:
        nonlocal turns
        turns += 1
        for (kind, namespace, name), held in list(hung.objects.held.items()):
            if kind == PODS and "new" in name:
                statuses = [held["status"]["containerStatuses"][0] | {"restartCount": turns // 3}]
                hung.objects.merge(PODS, namespace, name, {"status": {"containerStatuses": statuses}})

    hung.behave = restart
    ended = await hung.healed()
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "NOT_READY"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (crashed(code=2), "ends with exit code 2 each time"),
        (crashed(waiting="ImagePullBackOff"), "a new pod pulls the same image"),
        (crashed(waiting="CreateContainerConfigError"), "refers to the same ConfigMaps and Secrets"),
        (crashed(waiting="RunContainerError"), "starts the same command"),
    ],
)
@pytest.mark.parametrize("action", ["auto", "restart_unhealthy_pods"])
async def test_what_no_restart_cures_is_reported_with_evidence_and_not_restarted(
    ward: Ward, action: str, status: JsonObject, words: str
) -> None:
    ward.deploy(replicas=1, ready=0)
    ward.pod("web-1", ready=False, container_status=status)
    ended = await ward.healed(action=action)
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.PROPOSED)
    assert ward.objects.writes == []
    (found,) = (ended.result or {})["findings"]
    assert found["remedy"] is None
    assert words in found["findings"][0]["why"]
    assert found["findings"][0]["evidence"][0]["object"] == "Pod/shop/web-1"


async def test_a_pod_that_was_never_ready_is_not_restarted(ward: Ward) -> None:
    ward.deploy(replicas=1, ready=0)
    ward.pod("web-1", ready=False, unready_for=3600)
    ended = await ward.healed(action="restart_unhealthy_pods")
    assert ended.outcome is Outcome.PROPOSED
    assert "would be no other" in (ended.steps[0].message or "")


async def test_one_that_crashes_beside_ready_twins_is_replaced(ward: Ward) -> None:
    ward.deploy(ready=1)
    ward.pod("web-1", ready=False, container_status=crashed())
    ward.pod("web-2")
    ward.objects.evicted = ward.replace_evicted
    ended = await ward.healed()
    assert ended.state is State.COMPLETED
    assert ward.objects.targets("evict") == ["pods/shop/web-1"]


@pytest.mark.parametrize("replicas", [0])
async def test_what_is_scaled_to_zero_is_not_healed(ward: Ward, replicas: int) -> None:
    ward.deploy(replicas=replicas)
    ended = await ward.healed()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)
    assert "scaled to zero" in (ended.steps[0].message or "")


async def test_what_is_healthy_needs_nothing(ward: Ward) -> None:
    ward.deploy()
    ward.pod("web-1")
    ward.pod("web-2")
    ended = await ward.healed()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)
    assert ward.objects.writes == []


async def test_an_eviction_whose_answer_is_lost_is_found_not_repeated(hung: Ward) -> None:
    calls = 0

    def lose(_verb: str, _target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OutcomeUnknown("kubernetes_api", "a write was sent, but no answer came")

    hung.objects.after = lose
    ended = await hung.healed()
    assert ended.state is State.COMPLETED
    assert hung.objects.targets("evict") == ["pods/shop/web-1", "pods/shop/web-2"]
    item = ended.step("restart_pods").items["uid-web-1"]
    assert item.message == "Effect found: web-1 was evicted"


async def test_a_cluster_that_is_away_is_waited_for(hung: Ward) -> None:
    calls = 0

    def away(_verb: str, _target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise DependencyUnavailable("kubernetes_api", "connection refused")

    hung.objects.before = away
    ended = await hung.healed()
    assert ended.state is State.COMPLETED
    assert hung.objects.targets("evict") == ["pods/shop/web-1", "pods/shop/web-2"]


async def test_of_a_whole_workspace_several_applications_wait_for_a_person(ward: Ward) -> None:
    for app in ("web", "api"):
        ward.deploy(app, replicas=1, ready=0)
        ward.pod(f"{app}-1", app, ready=False)
    ward.deploy("well", replicas=1)
    ward.pod("well-1", "well")
    reply = await ward.heal(None)
    assert reply.data.status == "pending_approval"
    waiting = await ward.only()
    assert waiting.approval is not None
    assert waiting.approval.rules == ("several_applications",)
    assert waiting.resource_id == "ws-123"


async def test_one_ill_application_of_a_workspace_is_healed_under_its_own_lock(ward: Ward) -> None:
    ward.deploy(replicas=1, ready=0)
    ward.pod("web-1", ready=False)
    ward.objects.evicted = ward.replace_evicted
    ended = await ward.healed(None)
    assert ended.state is State.COMPLETED
    assert ended.application_id is None
    assert ended.locks == ("ws-123//auto_heal",)


async def test_a_dry_run_shows_the_plan_and_the_same_plan_can_be_had(hung: Ward) -> None:
    reply: Any = await hung.heal(dry_run=True)
    assert (reply.status, reply.data.status, reply.data.operation_id) == (200, "planned", None)
    plan = reply.data.plan
    assert plan.allowed
    assert [step.step for step in plan.steps] == ["identify_unhealthy_pods", "restart_pods", "verify_health"]
    assert [pod["name"] for pod in plan.details["targets"][0]["pods"]] == ["web-1", "web-2"]
    assert hung.objects.writes == []
    begun = await hung.heal(plan_hash=plan.plan_hash)
    assert begun.status == 202
