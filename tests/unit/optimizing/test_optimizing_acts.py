"""From the plan to a verified rollout, and back where it is not stood."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from opsapi.applications.errors import ManagedExternally
from opsapi.kit.errors import AmbiguousResource, InvalidState, OpsError, PolicyDenied, ResourceNotFound
from opsapi.operations.model import NewOperation, Outcome, State, UndoState, lock_key
from opsapi.operations.proposal import Proposal, plan_hash
from opsapi.policy.admission import Admission
from opsapi.policy.evaluation import judge
from opsapi.policy.model import PolicySettings, Waiver
from opsapi.telemetry.model import Traffic
from opsapi.workspaces.objects import AUTOSCALER
from support.acting import make_call, make_caller, make_new_operation
from support.optimizing import DEPLOYMENTS, PERSON, OptimizeStage, container
from support.scaling import UNHURRIED
from support.workloads import make_autoscaler

OURS = {"requests": {"cpu": "120m", "memory": "230Mi"}, "limits": {"memory": "230Mi"}}
BEFORE = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}


def prepared(stage: OptimizeStage, *names: str) -> None:
    for name in names or ("web",):
        stage.run(name)
        stage.used(120, 200, name)


async def refused(stage: OptimizeStage, error: type[OpsError], target: str | None = "web") -> OpsError:
    with pytest.raises(error) as caught:
        await stage.begin(target)
    assert not stage.objects.writes
    return caught.value


async def test_a_plan_shows_each_container_with_its_figures_and_savings(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    proposal = await stage.propose()
    (app,) = proposal.plan["applications"]
    (row,) = app["containers"]
    assert (row["container"], row["points"], row["oom_killed"], row["unknown"]) == ("app", 200, False, {})
    assert row["current"] == {
        "cpu_request": "500m",
        "memory_request": "1Gi",
        "cpu_limit": None,
        "memory_limit": "1Gi",
    }
    assert row["recommended"] == {
        "cpu_request": "120m",
        "memory_request": "230Mi",
        "cpu_limit": None,
        "memory_limit": "230Mi",
    }
    cpu, memory = 0.38 * 0.031611 * 730, (1024 - 230) / 1024 * 0.004237 * 730
    assert row["savings"] == round(2 * (cpu + memory), 2)
    assert (proposal.plan["changed"], proposal.plan["currency"]) == (1, "USD")
    assert proposal.plan["prices"].startswith("the service's default price book")
    assert (app["source"], app["why_not"]) == ("fake", None)
    assert not stage.objects.writes


async def test_an_agents_plan_waits_for_a_person(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage, "web", "api")
    agent = make_caller("workspace:admin")
    alone = await stage.propose(caller=agent)
    assert [refusal.rule.value for refusal in judge(PolicySettings(), alone.ask)] == ["resize"]
    both = await stage.propose(None, caller=agent)
    assert [refusal.rule.value for refusal in judge(PolicySettings(), both.ask)] == ["resize", "several_applications"]
    assert both.ask.targets == (lock_key("ws-123", "app-api"), lock_key("ws-123", "app-web"))
    assert both.locks == {"ws-123//optimize_resources"}
    assert alone.locks == {lock_key("ws-123", "app-web")}
    waiting = await stage.begin(caller=agent)
    assert waiting.state is State.PENDING_APPROVAL


async def test_the_template_is_changed_rolled_out_and_verified(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    await stage.begin()
    ended = await stage.work()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert stage.resources() == OURS
    assert stage.objects.targets("patch") == ["deployments.apps/shop/web"]
    (event,) = stage.workloads.events.values()
    assert (event.reason, event.action) == ("ResizedByOpsapi", "optimize_resources")
    assert ended.result is not None
    told = ended.result["applications"]["shop/Deployment/web"]
    assert told["state"] == "done"
    assert told["message"] == (
        "shop/Deployment/web: 2 of 2 pods have the new size, 2 are ready, held for 10 s; "
        "error rate, latency, throttling not observed"
    )
    assert await stage.ledger.holder(lock_key("ws-123", "app-web")) is None


async def test_every_container_goes_in_one_patch_and_others_fields_stay(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    sidecar = container({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "2"}}, "proxy")
    stage.run("web", container(), sidecar)
    stage.used(120, 200)
    stage.used(50, 90, of="proxy")
    await stage.begin()
    ended = await stage.work()
    assert ended.state is State.COMPLETED, ended
    assert stage.resources(of="proxy") == {
        "requests": {"cpu": "50m", "memory": "104Mi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": "2", "memory": "104Mi"},
    }
    assert len(stage.objects.writes) == 1
    containers = stage.held()["spec"]["template"]["spec"]["containers"]
    assert [one["image"] for one in containers] == ["nginx:1.27", "nginx:1.27"]


async def test_what_does_not_become_ready_is_rolled_back(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    stage.stands = False
    await stage.begin()
    ended = await stage.work()
    assert ended.state is State.ROLLED_BACK, ended
    assert ended.error is not None
    assert ended.error.code == "NOT_READY"
    assert stage.resources() == BEFORE
    assert len(stage.objects.writes) == 2


async def test_a_kill_at_the_new_size_takes_it_back_at_once(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    await stage.begin()
    stage.killed = True
    ended = await stage.work()
    assert ended.state is State.ROLLED_BACK
    assert ended.error is not None
    assert ended.error.code == "OOM_KILLED"
    assert stage.resources() == BEFORE


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (Traffic(100, 4.0, 5, 90), "The error rate rose from 0.5 % to 4 %"),
        (Traffic(100, 0.5, 5, 400), "The p95 latency rose from 100 ms to 400 ms"),
    ],
)
async def test_what_users_feel_takes_it_back(optimize_stage: OptimizeStage, after: Traffic, told: str) -> None:
    stage = optimize_stage
    prepared(stage)
    stage.metrics.serve("web", Traffic(100, 0.5, 5, 100), after, at=stage.inventory.now())
    await stage.begin()
    ended = await stage.work()
    assert ended.state is State.ROLLED_BACK
    assert ended.error is not None
    assert (ended.error.code, ended.error.message) == ("WORSE_THAN_BEFORE", told)
    assert stage.resources() == BEFORE


async def test_somebody_elses_sizes_are_not_taken_back(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    await stage.begin()
    others = {"requests": {"cpu": "333m"}}

    def changed(verb: str, target: str) -> None:
        stage.objects.after = lambda _verb, _target: None
        spec = {"template": {"spec": {"containers": [container(others)]}}}
        stage.objects.merge(DEPLOYMENTS, "shop", "web", {"spec": spec})

    stage.objects.after = changed
    ended = await stage.work()
    assert (ended.state, ended.outcome) == (State.FAILED, Outcome.PARTIAL), ended
    assert ended.error is not None
    assert ended.error.code == "CHANGED_MEANWHILE"
    assert ended.result is not None
    assert "were changed since" in ended.result["undo_skipped"][0]["reason"]
    assert stage.resources() == others


async def test_a_template_that_changed_since_the_plan_is_left(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    await stage.begin()
    spec = {"template": {"spec": {"containers": [container({"requests": {"cpu": "2"}})]}}}
    stage.objects.merge(DEPLOYMENTS, "shop", "web", {"spec": spec})
    ended = await stage.work()
    assert ended.error is not None
    assert (ended.state, ended.error.code) == (State.FAILED, "CHANGED_MEANWHILE")
    assert not stage.objects.writes


async def test_the_first_that_does_not_stand_it_ends_it_and_the_others_keep_theirs(
    optimize_stage: OptimizeStage,
) -> None:
    stage = optimize_stage
    prepared(stage, "api", "shop", "web")
    await stage.begin(None)
    rolled_out = stage.objects.after

    def second_fails(verb: str, target: str) -> None:
        stage.stands = target.endswith("/api")
        rolled_out(verb, target)

    stage.objects.after = second_fails
    ended = await stage.work()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.PARTIAL), ended
    assert ended.result is not None
    told = {place.rpartition("/")[2]: one for place, one in ended.result["applications"].items()}
    assert {name: one["state"] for name, one in told.items()} == {"api": "done", "shop": "failed", "web": "skipped"}
    assert told["shop"]["undo"] == "undone"
    assert [stage.resources(name) for name in ("api", "shop", "web")] == [OURS, BEFORE, BEFORE]
    for name in ("api", "shop", "web"):
        assert await stage.ledger.holder(lock_key("ws-123", f"app-{name}")) is None


async def test_an_application_that_another_operation_works_on_is_passed_over(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage, "api", "web")
    await stage.begin(None)
    other = NewOperation(**(_other() | {"application_id": "app-api", "resource_id": "app-api"}))
    await stage.ledger.begin(other, make_call(PERSON), locks={lock_key("ws-123", "app-api")})
    ended = await stage.work()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED)
    assert [stage.resources(name) for name in ("api", "web")] == [BEFORE, OURS]


def _other() -> dict[str, Any]:

    return msgspec.structs.asdict(make_new_operation(action="unknown_here"))


async def test_an_answer_that_got_lost_is_looked_for_not_repeated(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    await stage.begin()
    send = stage.objects.patch

    async def once(*arguments: Any, **named: Any) -> Any:
        stage.objects.lost = not stage.objects.writes
        return await send(*arguments, **named)

    stage.objects.patch = once  # type: ignore[method-assign]
    ended = await stage.work()
    assert ended.state is State.COMPLETED, ended
    assert len(stage.objects.writes) == 1
    (item,) = ended.step("apply_recommendations").items.values()
    assert item.effect is not None
    assert item.effect["found"] is True


async def test_a_person_may_take_all_of_it_back_later(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage, "api", "web")
    begun = await stage.begin(None)
    await stage.work()
    assert [stage.resources(name) for name in ("api", "web")] == [OURS, OURS]

    admission = Admission((await stage.propose(None)).ask, UNHURRIED, exempt=True)
    until = stage.clock.now() + timedelta(hours=1)
    await stage.ledger.reopen(begun.id, make_call(PERSON), admission=admission, until=until)
    ended = await stage.work()
    assert ended.state is State.ROLLED_BACK, ended
    assert [stage.resources(name) for name in ("api", "web")] == [BEFORE, BEFORE]
    undo = ended.step("apply_recommendations").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE


# what is left alone


async def test_too_short_a_history_changes_nothing_and_says_why(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    stage.run()
    stage.used(120, 200, minutes=60)
    proposal = await stage.propose()
    assert proposal.nothing_to_do
    (app,) = proposal.plan["applications"]
    reason = "60 readings over 1h; at least 100 over 3h are needed"
    assert app["containers"][0]["unknown"] == {"cpu": reason, "memory": reason}
    assert app["why_not"] == f"nothing is known well enough: {reason}"
    await stage.begin()
    ended = await stage.work()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)
    assert ended.result is not None
    assert ended.result["recommendations"]["looked_at"] == 1


async def test_without_any_metrics_nothing_is_recommended(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    stage.metrics.away = "prometheus does not answer"
    (app,) = (await stage.propose()).plan["applications"]
    assert set(app["containers"][0]["unknown"].values()) == {"prometheus does not answer"}


async def test_what_an_hpa_scales_by_is_unknown_and_the_rest_is_sized(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    stage.inventory.put(AUTOSCALER, make_autoscaler())
    await stage.begin()
    ended = await stage.work()
    assert ended.state is State.COMPLETED
    assert stage.resources() == {"requests": {"cpu": "500m", "memory": "230Mi"}, "limits": {"memory": "230Mi"}}


async def test_what_argo_keeps_is_answered_with_the_patch(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    stage.run(labels={"argocd.argoproj.io/instance": "shop"})
    stage.used(120, 200)
    details = msgspec.to_builtins((await refused(stage, ManagedExternally)).details)
    assert (details["manager"], details["source"]) == ("Argo CD", "Application shop")
    assert details["patch"] == (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  template:\n"
        "    spec:\n      containers:\n      - name: app\n        resources:\n          requests:\n"
        "            cpu: 120m\n            memory: 230Mi\n          limits:\n            memory: 230Mi\n"
    )
    proposal = await stage.propose(None)
    assert proposal.nothing_to_do
    assert proposal.plan["applications"][0]["patch"] == details["patch"]
    await stage.begin(None)
    assert (await stage.work()).outcome is Outcome.PROPOSED


async def test_policy_may_waive_the_gitops_rule(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    waiver = Waiver(account=PERSON.account_id, rules=("managed_externally",))  # type: ignore[arg-type]
    stage.arrange(msgspec.structs.replace(UNHURRIED, waivers=(waiver,)))
    stage.run(labels={"argocd.argoproj.io/instance": "shop"})
    stage.used(120, 200)
    await stage.begin()
    assert (await stage.work()).state is State.COMPLETED
    assert stage.resources() == OURS


@pytest.mark.parametrize(
    ("changes", "state"),
    [({"paused": True}, "paused"), ({"replicas": 0}, "stopped"), ({"ready": 1}, "degraded")],
)
async def test_what_could_not_be_verified_is_not_begun(
    optimize_stage: OptimizeStage, changes: dict[str, Any], state: str
) -> None:
    stage = optimize_stage
    stage.run(**changes)
    stage.used(120, 200)
    error = await refused(stage, InvalidState)
    assert msgspec.to_builtins(error.details)["state"] == state
    proposal = await stage.propose(None)
    assert (proposal.nothing_to_do, proposal.refusals) == (True, ())


async def test_a_protected_application_is_left_alone(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    stage.run(labels={"opsapi.dev/protected": "true"})
    stage.used(120, 200)
    error = await refused(stage, PolicyDenied)
    assert msgspec.to_builtins(error.details)["rule"] == "protected_label"


async def test_what_takes_every_pod_down_at_once_is_weighed_as_that(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    stage.run(strategy={"type": "Recreate"})
    stage.used(120, 200)
    ask = (await stage.propose(caller=make_caller("workspace:admin"))).ask
    assert "blast_radius" in [refusal.rule.value for refusal in judge(PolicySettings(), ask)]
    others = await stage.propose(None)
    assert others.nothing_to_do
    assert "Recreate takes every pod down at once" in others.plan["applications"][0]["why_not"]


async def test_an_unknown_or_ambiguous_name_is_refused(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    await refused(stage, ResourceNotFound, "wep")
    other = stage.held() | {"metadata": {"name": "web", "namespace": "blue", "uid": "uid-blue"}}
    stage.objects.put(DEPLOYMENTS, other)
    await refused(stage, AmbiguousResource, "web")


async def test_what_is_approved_are_the_figures_that_were_shown(optimize_stage: OptimizeStage) -> None:
    stage = optimize_stage
    prepared(stage)
    waiting = await stage.begin(caller=make_caller("workspace:admin"))
    replan = stage.procedures.newest("optimize_resources").replan
    assert replan is not None
    stage.used(400, 400, minutes=100)

    def hashed(proposal: Proposal) -> str:
        return plan_hash(proposal, "sa-agent")

    assert hashed(await replan(waiting)) == waiting.plan_hash
    spec = {"template": {"spec": {"containers": [container({"requests": {"cpu": "2"}})]}}}
    stage.objects.merge(DEPLOYMENTS, "shop", "web", {"spec": spec})
    assert hashed(await replan(waiting)) != waiting.plan_hash
